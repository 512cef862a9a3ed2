"""Workflows of random shape whose results follow from the shape alone, and what each of their runs has to come to.

Task results are checksums of the task's id, its cycle and what it read, so that a lost, doubled or misplaced result
shows in all that comes after it. Nothing depends on time, chance or the number of attempts; so a run on the local
backend says what a run on workers has to end with, whatever dies there.
"""

from __future__ import annotations

import json
import random
import re
import threading
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from graflow_celery import (
    AtLeastNGroupPolicy,
    GraflowWorkflowCanceledError,
    ParallelGroup,
    RetryPolicy,
    TaskExecutionContext,
    chain,
    task,
    workflow,
)
from graflow_celery.core.expr import Executable
from graflow_celery.core.task import TaskWrapper
from graflow_celery.ports import EventRecord
from graflow_celery.workflows import WorkflowContext

#: Faults are no poison: a task may lose more workers than one run of the command can kill.
LOSSES = 50
RETRIES = RetryPolicy(max_retries=3, initial_interval=0.02, max_interval=0.1)
NUMBERS = [3, 1, 4, 1, 5]
#: What is compared with the local run: all that says that something ended, and how.
ENDINGS = frozenset(
    {
        "node_succeeded",
        "node_failed",
        "node_skipped",
        "node_retried",
        "node_iterated",
        "group_succeeded",
        "group_failed",
    }
)
#: Of a run that adds tasks the name of the added group and the pass hold the attempt's number, which losses change.
_ATTEMPT_MARK = re.compile(r">[0-9a-f]+|@x[0-9a-f]+")


class ExpectedFailureError(Exception):
    """What a task raises that is to fail."""


def checksum(*parts: Any) -> int:
    return zlib.crc32(json.dumps(parts, sort_keys=True, default=lambda value: type(value).__name__).encode())


def _spend(seconds: float) -> None:
    """Blocks; a wait that a signal interrupts."""
    if seconds > 0:
        threading.Event().wait(seconds)


def _value(context: TaskExecutionContext, reads: Sequence[str], *more: Any) -> int:
    return checksum(context.task_id, context.cycle_count, [[name, context.get_result(name)] for name in reads], *more)


@task(inject_context=True, max_losses=LOSSES)
def work(context: TaskExecutionContext, pace: float, seconds: float, reads: list[str]) -> int:
    _spend(pace * seconds)
    return _value(context, reads)


@task(inject_context=True, max_losses=LOSSES, retry_policy=RETRIES)
def flaky(context: TaskExecutionContext, pace: float, seconds: float, reads: list[str], failures: int) -> int:
    _spend(pace * seconds)
    if context.retry_count < failures:
        raise ExpectedFailureError(f"failure {context.retry_count + 1} of {failures}")
    return _value(context, reads)


@task(inject_context=True, max_losses=LOSSES)
def iterating(
    context: TaskExecutionContext, handed: int = 0, *, pace: float, seconds: float, reads: list[str], cycles: int
) -> int:
    _spend(pace * seconds)
    value = _value(context, reads, handed)
    if context.cycle_count < cycles:
        context.next_iteration(value)
    return value


@task(inject_context=True, max_losses=LOSSES)
def jumping(
    context: TaskExecutionContext, pace: float, seconds: float, reads: list[str], cycles: int, back: str
) -> int:
    """Jumps back until it has run so often."""
    _spend(pace * seconds)
    if context.cycle_count < cycles:
        context.next_task(back)
    return _value(context, reads)


@task(inject_context=True, max_losses=LOSSES)
def adding(context: TaskExecutionContext, pace: float, seconds: float, reads: list[str], count: int) -> int:
    """Adds tasks to the run, before its successors."""
    _spend(pace * seconds)
    for number in range(count):
        context.next_task(work(task_id=f"{context.task_id}.{number}", seconds=seconds, reads=reads))
    return _value(context, reads)


@task(inject_context=True, max_losses=LOSSES)
def listing(context: TaskExecutionContext, pace: float, seconds: float, reads: list[str], size: int) -> list[int]:
    _spend(pace * seconds)
    return [_value(context, reads, number) for number in range(size)]


@task(inject_context=True, max_losses=LOSSES, retry_policy=RETRIES)
def member(context: TaskExecutionContext, item: int, pace: float, seconds: float, failing: bool) -> int:
    """One of a mapped task's; those with an odd item fail once if ``failing``."""
    _spend(pace * seconds)
    if failing and item % 2 and not context.retry_count:
        raise ExpectedFailureError(f"item {item}")
    return checksum(context.task_id, item)


@task(inject_context=True, max_losses=LOSSES)
def broken(context: TaskExecutionContext, pace: float, seconds: float) -> None:
    _spend(pace * seconds)
    raise ExpectedFailureError(f"task '{context.task_id}' is to fail")


@task(inject_context=True, max_losses=LOSSES)
def ending(context: TaskExecutionContext, pace: float, seconds: float, reads: list[str], cancels: bool) -> int:
    """Ends the run before its end."""
    _spend(pace * seconds)
    (context.cancel_workflow if cancels else context.terminate_workflow)("as drawn")
    return _value(context, reads)


class Maker:
    """Draws the stages of one workflow, each of which reads what the one before came to."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.count = 0

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def seconds(self) -> float:
        least, most = self.chance.choices([(0, 0), (0.02, 0.4), (0.4, 1.0), (1.0, 2.0)], [40, 42, 12, 6])[0]
        return round(self.chance.uniform(least, most), 3)

    def one(self, reads: list[str]) -> TaskWrapper:
        """A task that succeeds in the end."""
        given: dict[str, Any] = {"seconds": self.seconds(), "reads": reads}
        match self.chance.choices(["work", "flaky", "iterating"], [70, 20, 10])[0]:
            case "flaky":
                return flaky.bind(task_id=self.name("f"), failures=self.chance.randint(1, 2), **given)
            case "iterating":
                return iterating.bind(task_id=self.name("i"), cycles=self.chance.randint(2, 3), **given)
            case _:
                return work.bind(task_id=self.name("w"), **given)

    def line(self, reads: list[str], length: int) -> list[TaskWrapper]:
        found: list[TaskWrapper] = []
        for _ in range(length):
            found.append(self.one(reads))
            reads = [found[-1].task_id]
        return found

    def stage(self, reads: list[str]) -> tuple[Executable, Executable]:
        """The first and the last node of what comes next, wired together."""
        kind = self.chance.choices(["line", "diamond", "group", "map", "loop", "add"], [20, 15, 35, 15, 10, 5])[0]
        match kind:
            case "diamond":
                return self.diamond(reads)
            case "group":
                found = self.group(reads, depth=2)
                return found, found
            case "map":
                return self.mapped(reads)
            case "loop":
                return self.loop(reads)
            case "add":
                added = adding.bind(
                    task_id=self.name("a"), seconds=self.seconds(), reads=reads, count=self.chance.randint(1, 3)
                )
                return added, added
            case _:
                tasks = self.line(reads, self.chance.randint(1, 3))
                chain(*tasks)
                return tasks[0], tasks[-1]

    def diamond(self, reads: list[str]) -> tuple[Executable, Executable]:
        """A task, some lines side by side without a group, and the join after them."""
        first = self.one(reads)
        lines = [self.line([first.task_id], self.chance.randint(1, 2)) for _ in range(self.chance.randint(2, 4))]
        last = self.one([tasks[-1].task_id for tasks in lines])
        for tasks in lines:
            chain(first, *tasks, last)
        return first, last

    def mapped(self, reads: list[str]) -> tuple[Executable, Executable]:
        source = listing.bind(
            task_id=self.name("l"), seconds=self.seconds(), reads=reads, size=self.chance.randint(0, 6)
        )
        each = member.bind(task_id=self.name("e"), seconds=self.seconds() / 2, failing=self.chance.random() < 0.3)
        items = each.map(name=self.name("m"), max_parallel=self.chance.choice([None, None, 1, 2]))
        source >> items
        return source, items

    def loop(self, reads: list[str]) -> tuple[Executable, Executable]:
        first, *others = self.line(reads, self.chance.randint(1, 2))
        last = jumping.bind(
            task_id=self.name("j"),
            seconds=self.seconds(),
            reads=[[first, *others][-1].task_id],
            cycles=self.chance.randint(2, 3),
            back=first.task_id,
        )
        chain(first, *others, last)
        return first, last

    def group(self, reads: list[str], depth: int, dies: bool = False) -> ParallelGroup:
        """A group that meets its policy, unless it ``dies``."""
        size = self.chance.randint(2, 5)
        tolerant = not dies and self.chance.random() < 0.4
        fails = self.chance.randint(0, 2) if tolerant else int(dies)
        members = [self.broken_member(reads) for _ in range(fails)]
        members += [self.member(reads, depth) for _ in range(size)]
        self.chance.shuffle(members)
        policy: Any = self.chance.choice(["best_effort", AtLeastNGroupPolicy(size)]) if tolerant else "strict"
        return ParallelGroup(members, name=self.name("g"), policy=policy)

    def member(self, reads: list[str], depth: int) -> Executable:
        kind = self.chance.choices(["task", "line", "group", "map"], [60, 20, 12 if depth > 1 else 0, 8])[0]
        match kind:
            case "line":
                return chain(*self.line(reads, 2))
            case "group":
                before = self.one(reads)
                return chain(before, self.group([before.task_id], depth - 1))
            case "map":
                each = member.bind(
                    task_id=self.name("e"), seconds=self.seconds() / 2, failing=self.chance.random() < 0.3
                )
                return each.map(name=self.name("m"), over="numbers", max_parallel=self.chance.choice([None, 2]))
            case _:
                return self.one(reads)

    def broken_member(self, reads: list[str]) -> Executable:
        fails = broken.bind(task_id=self.name("b"), seconds=self.seconds())
        return chain(fails, self.one(reads)) if self.chance.random() < 0.3 else fails

    def odd(self, reads: list[str]) -> Executable | None:
        """What makes one run in seven end otherwise than as succeeded."""
        match self.chance.choices(["", "broken", "group", "terminate", "cancel"], [86, 4, 4, 4, 2])[0]:
            case "broken":
                return broken.bind(task_id=self.name("b"), seconds=self.seconds())
            case "group":
                return self.group(reads, 1, dies=True)
            case "":
                return None
            case kind:
                cancels = kind == "cancel"
                return ending.bind(task_id=self.name("x"), seconds=self.seconds(), reads=reads, cancels=cancels)


def build(seed: int, number: int) -> WorkflowContext:
    """The workflow of a run: the same in every process."""
    maker = Maker(random.Random(f"{seed}-{number}"))
    with workflow(f"chaos-{seed}-{number}") as wf:
        last: Executable = work.bind(task_id="start", seconds=0.0, reads=[])
        for _ in range(maker.chance.randint(1, 4)):
            first, end = maker.stage([last.task_id])
            last >> first
            last = end
        odd = maker.odd([last.task_id])
        if odd is not None:
            last >> odd
            last = odd
        last >> work.bind(task_id="end", seconds=0.0, reads=[last.task_id])
    return wf


def channel(pace: float) -> dict[str, Any]:
    """What a run's channel starts with. ``pace``: by how much longer than drawn its tasks take."""
    return {"pace": pace, "numbers": NUMBERS}


@dataclass(frozen=True)
class Expected:
    """What a run has to come to. ``endings`` is None where which tasks still end depends on which was faster."""

    status: str
    result: Any
    endings: Counter[tuple[str, str]] | None


def expected(seed: int, number: int) -> Expected:
    """Runs the workflow here, without its waits."""
    events: list[EventRecord] = []
    result: Any = None
    try:
        result = build(seed, number).execute(initial_channel=channel(0.0), progress=events.append, timeout=60)
    except (GraflowWorkflowCanceledError, ExpectedFailureError):
        pass
    except Exception as error:  # noqa: BLE001  boundary: what a drawn workflow fails with, a group's error among others
        result = type(error).__name__
    status = str(events[-1]["event"]).removeprefix("run_")
    if status not in ("succeeded", "terminated"):
        result = None
    return Expected(status, result, endings(events) if status == "succeeded" else None)


def endings(events: Iterable[EventRecord]) -> Counter[tuple[str, str]]:
    """How often each activation ended how."""
    return Counter((str(one["event"]), plain(str(one["node"]))) for one in events if one["event"] in ENDINGS)


def plain(activation: str) -> str:
    """An activation's key without what depends on how many attempts its task took."""
    return _ATTEMPT_MARK.sub("", activation)
