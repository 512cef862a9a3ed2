"""From the events of a run to the spans that no attempt's own process could tell of. Pure.

An attempt is traced by the process that runs it. The rest is told once, when the run has ended: the run, its groups and
nodes, and attempts that were lost, given back, killed or cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graflow_celery.core.activation import item_of, node_of
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import NodeState
from graflow_celery.errors import UnknownNodeError
from graflow_celery.ports import EventRecord, NodeReport, RunRef
from graflow_celery.tracing.identity import Kind, span_id_of

#: What an attempt ends with, and what becomes of it.
_ATTEMPT_ENDS = {
    "node_succeeded": "succeeded",
    "node_failed": "failed",
    "node_retried": "retried",
    "node_iterated": "iterated",
    "node_waiting": "waiting",
    "feedback_requested": "waiting",
    "node_lost": "lost",
    "node_returned": "returned",
}
_BEGINNINGS = frozenset({"run_submitted", "run_retried", "run_resumed"})
_RUN_ENDS = frozenset({"run_succeeded", "run_failed", "run_cancelled", "run_terminated"})
FAULTS = frozenset({"failed", "retried", "lost", "returned", "cancelled"})


@dataclass(slots=True)
class Part:
    """A span to be. Of an attempt, what became of it is filled in when it has ended.

    Attributes:
        key: the activation's, of a run the workflow's name. ``attempt``: its number, 0 for what has none.
        start, end: seconds since the epoch; ``end`` is 0 for what goes on.
        status: as the events have it; ``reason`` why, where it is no success.
        follows: the attempt before, which it takes over from.
    """

    run: RunRef
    workflow: str
    kind: Kind
    key: str
    attempt: int = 0
    start: float = 0.0
    end: float = 0.0
    status: str = ""
    reason: str = ""
    worker: str = ""
    parent: str | None = None
    follows: str | None = None

    span_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.span_id = span_id_of(self.run, self.kind, "" if self.kind == "run" else self.key, self.attempt)

    @property
    def task(self) -> str:
        """The task's name, the same for all members of a mapped one."""
        item = item_of(node_of(self.key))
        return node_of(self.key) if item is None else item[0]


def parent_of(run: RunRef, plan: Plan, key: str) -> str:
    """The id of the span that the activation of a node or group belongs under."""
    place = Place.of(plan, key)
    owner = place.spec.owner
    if place.spec.group is not None:
        return span_id_of(run, "group", place.around.key)
    return span_id_of(run, "run") if owner is None else span_id_of(run, "node", owner.node)


def attempt_part(run: RunRef, workflow: str, key: str, attempt: int, **fields: Any) -> Part:
    """An attempt; the first one of a node follows none."""
    before = span_id_of(run, "attempt", key, attempt - 1) if attempt > run.first else None
    parent = span_id_of(run, "node", key)
    return Part(run, workflow, "attempt", key, attempt, parent=parent, follows=before, **fields)


@dataclass(frozen=True, slots=True)
class Records:
    """What the store has of a run beside its events. Times are in seconds since the epoch.

    Attributes:
        nodes: every activation that has a record, by key.
        status, reason: what the run ended with; ``began`` and ``ended`` when.
    """

    nodes: Mapping[str, NodeReport]
    began: float
    ended: float
    status: str
    reason: str = ""


@dataclass
class _Node:
    """What is known of an activation that goes on. ``running``: the attempt that runs, since when, and where."""

    first: float
    starts: int = 0
    running: tuple[int, float, str] | None = None


@dataclass
class _Story:
    run: RunRef
    workflow: str
    plan_of: Callable[[str], Plan]
    began: float | None = None
    ending: tuple[float, str, str] | None = None
    groups: dict[str, float] = field(default_factory=dict)
    nodes: dict[str, _Node] = field(default_factory=dict)
    parts: list[Part] = field(default_factory=list)

    def take(self, event: EventRecord) -> None:
        name, at = str(event["event"]), float(event["at"])
        if name in _BEGINNINGS:
            self._begin(at)
        elif name == "group_opened":
            self.groups[event["node"]] = at
        elif name in ("group_succeeded", "group_failed"):
            self._group(event["node"], at, name.removeprefix("group_"), str(event.get("reason", "")))
        elif name == "node_started":
            node = self.nodes.setdefault(event["node"], _Node(at))
            node.starts += 1
            node.running = (event["attempt"], at, str(event.get("worker", "")))
        elif name in _ATTEMPT_ENDS:
            self._attempt_ended(event, _ATTEMPT_ENDS[name])
        elif name in _RUN_ENDS:
            self.ending = at, name.removeprefix("run_"), str(event.get("reason", ""))

    @property
    def is_whole(self) -> bool:
        """Whether the log went back to the run's beginning, and on to its end."""
        return self.began is not None and self.ending is not None

    def _begin(self, at: float) -> None:
        """What was told of a run before its retry is told."""
        self.began, self.ending = at, None
        self.groups.clear()
        self.nodes.clear()
        self.parts.clear()

    def _group(self, key: str, at: float, status: str, reason: str) -> None:
        start = self.groups.pop(key, None)
        if start is not None or self.began is not None:
            self._add("group", key, start=at if start is None else start, end=at, status=status, reason=reason)

    def _attempt_ended(self, event: EventRecord, status: str) -> None:
        key, at, reason = event["node"], float(event["at"]), str(event.get("reason", ""))
        if key not in self.nodes and self.began is None:
            return  # its beginning was trimmed away; its record says when that was
        node = self.nodes.setdefault(key, _Node(at))
        if node.running is not None and ("reported" in event or status in ("lost", "returned")):
            self._cut_off(key, node, at, status, reason)
        node.running = None
        if status in ("succeeded", "failed"):
            self._add("node", key, start=node.first, end=at, status=status, reason=reason)
            del self.nodes[key]

    def _cut_off(self, key: str, node: _Node, at: float, status: str, reason: str) -> None:
        if node.running is not None:
            number, since, worker = node.running
            times: dict[str, Any] = {"start": since, "end": at, "status": status, "reason": reason, "worker": worker}
            self.parts.append(attempt_part(self.run, self.workflow, key, number, **times))

    def fill(self, records: Records) -> None:
        """What the log lacks, as the store's records have it: of each node its last attempt."""
        self.began = records.began
        self.ending = self.ending or (records.ended, records.status, records.reason)
        told = {part.key for part in self.parts if part.kind in ("node", "group")}
        for key, report in records.nodes.items():
            if key not in told and (report.attempt == 0 or report.attempt >= self.run.first):
                self._fill(key, report)

    def _fill(self, key: str, report: NodeReport) -> None:
        if report.state in (NodeState.SUCCEEDED, NodeState.FAILED):
            times = {"start": report.started, "end": report.started + report.duration}
            self._add("node" if report.attempt else "group", key, **times, status=report.state.value)
        elif report.state is NodeState.RUNNING and report.attempt:
            running = (report.attempt, report.started, report.worker)
            self.nodes.setdefault(key, _Node(report.started, 1, running))
        elif report.state is NodeState.RUNNING:
            self.groups.setdefault(key, report.started)

    def end(self) -> None:
        """What has not ended by now never will."""
        if self.ending is None:
            return
        at, status, reason = self.ending
        for key, node in self.nodes.items():
            if node.starts:
                self._cut_off(key, node, at, "cancelled", reason)
                self._add("node", key, start=node.first, end=at, status="cancelled", reason=reason)
        for key, start in self.groups.items():
            self._add("group", key, start=start, end=at, status="cancelled", reason=reason)
        start = at if self.began is None else self.began
        times: dict[str, Any] = {"start": start, "end": at, "status": status, "reason": reason}
        self.parts.append(Part(self.run, self.workflow, "run", self.workflow, **times))

    def _add(self, kind: Kind, key: str, **fields: Any) -> None:
        try:
            parent = parent_of(self.run, self.plan_of(key), key)
        except UnknownNodeError:  # of a graph that is gone
            parent = span_id_of(self.run, "run")
        self.parts.append(Part(self.run, self.workflow, kind, key, parent=parent, **fields))


def story(
    run: RunRef,
    workflow: str,
    plan_of: Callable[[str], Plan],
    events: Iterable[EventRecord],
    records: Callable[[], Records] | None = None,
) -> Sequence[Part]:
    """What is to be told of a run that has ended; the run itself last.

    Args:
        plan_of: the plan that has the activation of a key. Raises UnknownNodeError.
        records: asked where the log does not have it all: it was trimmed, or the setting ``events`` is off.
    """
    told = _Story(run, workflow, plan_of)
    for event in events:
        told.take(event)
    if records is not None and not told.is_whole:
        told.fill(records())
    told.end()
    return told.parts
