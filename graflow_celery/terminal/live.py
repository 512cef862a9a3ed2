"""Shows a run while it goes on: a screen that redraws itself, plain lines for a log, or JSON lines for a program."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Protocol, Self

from graflow_celery.core.plan import Plan
from graflow_celery.ports import EventRecord
from graflow_celery.terminal import console, summary
from graflow_celery.terminal.progress import FAILED, FINAL, NodeProgress, PlanFor, ProgressModel
from graflow_celery.terminal.screen import Screen
from graflow_celery.terminal.wording import counted, counts, duration, first_line, missing, place

LINES_PER_GROUP = 14
FAILURES_TOLD = 3
TELL_LEFT = 1.0  # seconds: less is not worth a guess
TELL_EVERY = 10.0  # seconds between two guesses at what is left of the run: each looks at all of its nodes
#: Of what befalls members of a group: how often it is told of at the most.
TOLD_AT_FIRST = {"requested": 3, "lost": 3, "returned": 3}

Tell = Callable[[EventRecord, NodeProgress | None], None]


class Display(Protocol):
    """Takes a run's events; safe to be fed from many threads."""

    model: ProgressModel

    def feed(self, record: EventRecord) -> None: ...

    def paused(self) -> AbstractContextManager[None]: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def display(
    plan: Plan,
    run_id: str,
    *,
    as_json: bool = False,
    quiet: bool = False,
    plan_for: PlanFor | None = None,
    earlier: Callable[[], Mapping[str, float]] = dict,
) -> Display:
    """What fits where standard output goes to; ``quiet`` shows nothing and keeps count. A run here has an empty id.

    Args:
        plan_for: where plans of added tasks come from.
        earlier: how many seconds nodes took in an earlier run; asked only where it is shown what is left.
    """
    model = ProgressModel(plan, plan_for)
    title = f"{plan.name}  run {run_id}" if run_id else plan.name
    if as_json:
        return Lines(model, lambda record, _: console.say_json({"run": run_id, **record}))
    if quiet:
        return Lines(model, lambda record, _: None)
    model.earlier = earlier()
    if console.is_terminal():
        return Screen(model, title)
    return Lines(model, LogLines(model, title))


@contextmanager
def shown(display: Display, run_id: str) -> Iterator[Display]:
    """Shows what the block feeds; and after it, if the run has ended, how."""
    try:
        with display:
            yield display
    finally:
        if display.model.has_ended:
            summary.tell(display.model, run_id)


class Lines:
    """Hands every event, and the node that it tells of, to a function that may print lines."""

    def __init__(self, model: ProgressModel, tell: Tell) -> None:
        self.model = model
        self._tell = tell
        self._lock = threading.Lock()

    def feed(self, record: EventRecord) -> None:
        with self._lock:
            self._tell(record, self.model.feed(record))

    def paused(self) -> AbstractContextManager[None]:
        """Prints no line meanwhile."""
        return _held(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None


@contextmanager
def _held(lock: threading.Lock) -> Iterator[None]:
    with lock:
        yield


class LogLines:
    """State changes as lines. A group has some twenty at most: its opening, first failures, a few counts, its end."""

    def __init__(self, model: ProgressModel, title: str, say: Callable[[str], None] = console.say) -> None:
        self._model = model
        self._title = title
        self._say = say
        self._told: dict[str, int] = {}
        self._guessed = 0.0

    def __call__(self, record: EventRecord, node: NodeProgress | None) -> None:
        seconds = self._model.seconds(float(record.get("at", 0.0)))
        for text in [*self._lines(record, node), *self._guess(float(record.get("at", 0.0)), seconds)]:
            self._say(f"{seconds:7.1f} s  {text}")

    def _guess(self, at: float, seconds: float) -> list[str]:
        """What is left of the whole run, now and then."""
        if seconds - self._guessed < TELL_EVERY or self._model.has_ended:
            return []
        self._guessed = seconds
        left = self._model.left(at)
        if left is None or left < TELL_LEFT:
            return []
        states = self._model.counts()
        done = sum(states[state] for state in FINAL)
        return [f"{done:,} of {counted(self._model.total, 'task')} done, about {duration(left)} left"]

    def _lines(self, record: EventRecord, node: NodeProgress | None) -> list[str]:
        event = str(record["event"])
        if event == "run_submitted":
            return [f"{self._title}  {counted(self._model.total, 'task')}"]
        if event == "workers_missing":
            return [missing(self._model.missing_queues)]
        if event == "run_stalled":
            return [f"stalled: {record.get('reason', '')}"]
        if event == "code_differs":
            reason = str(record.get("reason", ""))
            return [] if self._was_said(reason) else [reason]
        if event == "store_refuses":
            return [f"waits: {self._model.refusal}"]
        if node is None:
            return []
        if event == "map_expanded":
            return [f"{node.id}: {counted(node.members, 'member')}"]
        verb = event.partition("_")[2]
        group = self._model.group_of(node)
        if group is not None:
            return self._member(verb, node, self._outermost(group), float(record.get("at", 0.0)))
        if node.is_group:
            return [_group_line(verb, node)]
        return _task_lines(verb, node)

    def _was_said(self, text: str) -> bool:
        """Whether a text, which each process of a worker brings, was said before."""
        self._told[text] = self._told.get(text, 0) + 1
        return self._told[text] > 1

    def _outermost(self, group: str) -> NodeProgress:
        while (outer := self._model.specs[group].group) is not None:
            group = outer
        return self._model.nodes[group]

    def _member(self, verb: str, node: NodeProgress, group: NodeProgress, now: float) -> list[str]:
        if verb == FAILED and not node.is_group and len(self._model.failures) <= FAILURES_TOLD:
            return [f"{group.id}: {_task_lines(verb, node)[0]}"]
        if verb in TOLD_AT_FIRST and self._told_before(group, verb) < TOLD_AT_FIRST[verb]:
            return [f"{group.id}: {_task_lines(verb, node)[0]}"]
        due = group.done * LINES_PER_GROUP // max(1, group.members)
        if due <= self._told.get(group.id, 0) or group.done == group.members:
            return []
        self._told[group.id] = due
        left = group.left(now)
        guess = f", about {duration(left)} left" if left is not None and left >= TELL_LEFT else ""
        return [f"{group.id}: {counts(group)}{guess}"]

    def _told_before(self, group: NodeProgress, verb: str) -> int:
        """Of how many members of a group this was told before."""
        key = f"{group.id} {verb}"
        self._told[key] = self._told.get(key, 0) + 1
        return self._told[key] - 1


def _group_line(verb: str, group: NodeProgress) -> str:
    name = group.label or group.id
    match verb:
        case "opened":
            started = "counts its items" if group.mapped else f"{counted(group.members, 'member')} started"
            return f"{name}: {started}"
        case "succeeded":
            return f"{name}: {counts(group)}, done in {duration(group.seconds(0.0))}"
        case "skipped":
            return f"{name} skipped: what it follows did not succeed"
    return f"{name} failed: {first_line(group.reason)}"


def _task_lines(verb: str, node: NodeProgress) -> list[str]:
    on = place(node.worker)
    match verb:
        case "started":
            return [f"{node.id} started{on}"]
        case "succeeded":
            return [f"{node.id} succeeded in {duration(node.duration)}"]
        case "failed":
            return [f"{node.id} failed{on}: {first_line(node.reason)}"]
        case "retried" | "lost" | "returned":
            return [f"{node.id} is tried again: {first_line(node.reason)}"]
        case "requested":
            return [f"{node.id} waits for a person: request {node.request}"]
        case "answered":
            return [f"{node.id} was answered and goes on"]
        case "expired":
            return [f"{node.id} still waits for a person: nobody answered in time"]
        case "skipped":
            return [f"{node.id} skipped: what it follows did not succeed"]
    return []
