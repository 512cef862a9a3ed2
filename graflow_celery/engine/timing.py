"""Where a run's time went: the critical path, and what was lost to waiting. Worked out from the run's events alone.

Rule of this file: no clock, no store. Each event is taken in once, in the order of the stream, at a cost that does not
depend on the run's size.

A commit writes the event of what ended, and right after it, in the same step, the events of what that set going. So the
event before a ``node_queued`` or ``group_opened`` is its cause, and no edge of the graph is needed to find it. The
critical path is the chain of causes from the run's end back to its start: had one of its steps been quicker, the run
would have been.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from graflow_celery.core.activation import Passes, item_of, key_of, split
from graflow_celery.core.plan import NodeSpec
from graflow_celery.ports import EventRecord

Kind = Literal["task", "barrier", "other"]
_ENDS = frozenset({"run_succeeded", "run_failed", "run_cancelled", "run_terminated"})
#: After these an attempt has ended, and what it did has to be done again.
_AGAIN = frozenset({"node_retried", "node_lost", "node_returned"})
_ENDED = _AGAIN | {"node_succeeded", "node_failed", "node_iterated", "node_waiting", "feedback_requested"}
_FINAL = frozenset(
    {"node_succeeded", "node_failed", "node_skipped", "group_succeeded", "group_failed", "group_skipped"}
)


@dataclass(frozen=True, slots=True)
class PathStep:
    """A task's attempt, or a group's barrier, on the critical path.

    Attributes:
        node: the activation's key. ``attempt``: 0 for a barrier.
        waited: seconds for which it was ready and nothing had it: a task in its queue, a barrier after its last member.
        worked: seconds for which it ran; 0 for a barrier.
    """

    node: str
    attempt: int
    waited: float
    worked: float


@dataclass(frozen=True, slots=True)
class Timing:
    """The parts of the critical path add up to ``seconds``.

    Attributes:
        seconds: from the run's submission, or retry, to its end.
        path: the critical path from the run's start on.
        worked: attempts that came to something. ``repeated``: attempts that had to be made again.
        queued: from when an attempt could have begun until a worker began it.
        barriers: from the end of a group's last member until its barrier was closed.
        other: what is left: waits before a retry, people who were asked, the counting of a mapped task's items.
        queued_in_all: what all attempts of the run waited for a worker, on the path or beside it.
        idle_in_all: what all members of groups that had ended waited for the last one and the barrier.
    """

    seconds: float = 0.0
    path: tuple[PathStep, ...] = ()
    worked: float = 0.0
    repeated: float = 0.0
    queued: float = 0.0
    barriers: float = 0.0
    other: float = 0.0
    queued_in_all: float = 0.0
    idle_in_all: float = 0.0


@dataclass(slots=True, eq=False)
class _Point:
    """Something that ended at ``ended``, after ``cause``; a task was ready and started before."""

    key: str
    kind: Kind
    ended: float
    cause: _Point | None
    ready: float = 0.0
    started: float | None = None
    attempt: int = 0
    again: bool = False
    finished: bool = False
    added: str = ""


@dataclass(slots=True)
class _Group:
    """An open group: the point of its opening, how many members ended, when in sum, and the last of them."""

    opened: _Point
    members: int = 0
    sum_of_ends: float = 0.0
    last: _Point | None = None


@dataclass
class Chronicle:
    """Feed it a run's events in their order; ask it at any time.

    Args:
        nodes: the graph's nodes by id: which group each is in. Those of added tasks may be put in later, or left out.
    """

    nodes: Mapping[str, NodeSpec]
    _began: float | None = None
    _ended: float | None = None
    _now: float = 0.0
    _last: _Point | None = None
    _points: dict[str, _Point] = field(default_factory=dict)
    _groups: dict[str, _Group] = field(default_factory=dict)
    _opened: dict[Passes, str] = field(default_factory=dict)
    _queued_in_all: float = 0.0
    _idle_in_all: float = 0.0

    def feed(self, record: EventRecord) -> None:
        """Takes an event in. One that tells of no node and of neither start nor end changes nothing."""
        event, at = str(record["event"]), float(record.get("at", self._now))
        self._now = max(self._now, at)
        if event in ("run_submitted", "run_resumed", "run_retried"):
            self._begin(at)
        elif event in _ENDS:
            self._ended = at
        elif "node" in record:
            self._node(event, at, str(record["node"]), record)

    def _begin(self, at: float) -> None:
        """The run is submitted, or goes on after an end, of which nothing is left to tell."""
        self._began, self._ended, self._now, self._last = at, None, at, None
        self._queued_in_all = self._idle_in_all = 0.0
        for known in (self._points, self._groups, self._opened):
            known.clear()

    def _node(self, event: str, at: float, key: str, record: EventRecord) -> None:
        attempt = int(record.get("attempt", 0))
        if event == "node_queued":
            ready = at + float(record.get("delay", 0.0))
            self._points[key] = _Point(key, "task", ready, self._last, ready, attempt=attempt)
        elif event == "group_opened":
            if self._last is not None:
                self._last.added = self._last.added or key
            self._groups[key] = _Group(_Point(key, "other", at, self._last))
            self._opened[split(key)[1]] = key
        elif event == "node_started":
            self._start(key, attempt, at)
        elif event == "map_expanded":
            group = self._groups.setdefault(key, _Group(_Point(key, "other", at, self._last)))
            group.opened.ended = at
            self._last = group.opened
        elif event.startswith("group_"):
            self._close(key, at, event)
        elif event in ("node_skipped", "feedback_answered"):
            self._end(_Point(key, "other", at, self._last, finished=True), key, at, event)
        elif event in _ENDED:
            self._end(self._ended_point(key, attempt, at, event), key, at, event)

    def _start(self, key: str, attempt: int, at: float) -> None:
        point = self._points.get(key)
        if point is None or point.finished:  # a group's first member, of whose message no event tells
            group = self._groups.get(self._around(key) or "")
            cause = self._last if group is None else group.opened
            ready = at if cause is None else cause.ended
            point = self._points[key] = _Point(key, "task", at, cause, ready)
        point.attempt = attempt or point.attempt
        point.started = point.ended = at
        self._queued_in_all += max(0.0, at - point.ready)

    def _ended_point(self, key: str, attempt: int, at: float, event: str) -> _Point:
        point = self._points.get(key)
        if point is None or point.finished:  # it had added tasks, which ended; or it was lost before it began
            group = self._groups.get(point.added) if point is not None else None
            point = _Point(key, "other", at, self._last if group is None or group.last is None else group.last)
            self._points[key] = point
        point.attempt = attempt or point.attempt
        point.ended, point.finished, point.again = at, True, event in _AGAIN
        return point

    def _end(self, point: _Point, key: str, at: float, event: str) -> None:
        self._last = point
        group = self._groups.get(self._around(key) or "")
        if group is not None and event in _FINAL:
            group.last = point
            group.members += 1
            group.sum_of_ends += at

    def _close(self, key: str, at: float, event: str) -> None:
        group = self._groups.get(key)
        cause = self._last if group is None else group.last or group.opened
        point = _Point(key, "barrier", at, cause, finished=True)
        if group is not None:
            self._idle_in_all += max(0.0, group.members * at - group.sum_of_ends)
            group.last = point  # what the tasks that a node added are waited for until
        self._end(point, key, at, event)

    def _around(self, key: str) -> str | None:
        """The activation of the group that an activation is in."""
        node, passes = split(key)
        spec, item = self.nodes.get(node), item_of(node)
        if spec is None and item is None:  # an added task that nobody told of: its group was opened in its pass
            return self._opened.get(passes[:-1])
        name = spec.group if spec is not None else item[0] if item is not None else None
        return None if name is None else key_of(name, passes[:-1])

    def timing(self) -> Timing:
        """How things stand: of a run that goes on, up to the last event."""
        if self._began is None:
            return Timing()
        end = self._now if self._ended is None else self._ended
        totals = dict.fromkeys(("worked", "repeated", "queued", "barriers", "other"), 0.0)
        steps: list[PathStep] = []
        totals["other"] += max(0.0, end - (self._began if self._last is None else self._last.ended))
        for point in self._chain():
            before = self._began if point.cause is None else point.cause.ended
            if point.kind == "task" and point.started is not None:
                ready = max(point.ready, before)
                waited, worked = max(0.0, point.started - ready), max(0.0, point.ended - point.started)
                totals["other"] += max(0.0, ready - before)
                totals["queued"] += waited
                totals["repeated" if point.again else "worked"] += worked
                steps.append(PathStep(point.key, point.attempt, waited, worked))
            else:
                waited = max(0.0, point.ended - before)
                totals["barriers" if point.kind == "barrier" else "other"] += waited
                if point.kind == "barrier":
                    steps.append(PathStep(point.key, 0, waited, 0.0))
        return Timing(
            seconds=max(0.0, end - self._began),
            path=tuple(reversed(steps)),
            queued_in_all=self._queued_in_all,
            idle_in_all=self._idle_in_all,
            **totals,
        )

    def _chain(self) -> Iterator[_Point]:
        """From the last thing that ended back to the first."""
        point = self._last
        while point is not None:
            yield point
            point = point.cause


def timing(records: Iterable[EventRecord], nodes: Mapping[str, NodeSpec]) -> Timing:
    """Where the time of a run went, by its events.

    Args:
        records: the run's events in their order: ``run.events()``.
        nodes: the nodes of its graph: ``run.plan.nodes``.
    """
    chronicle = Chronicle(nodes)
    for record in records:
        chronicle.feed(record)
    return chronicle.timing()
