"""How far a run is: a reducer from its events. It prints nothing and reads no clock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from graflow_celery.core.activation import node_of
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import RunStatus
from graflow_celery.ports import EventRecord

WAITING, QUEUED, RUNNING = "waiting", "queued", "running"
ASKING = "asking"  # it waits for a person
SUCCEEDED, FAILED, SKIPPED = "succeeded", "failed", "skipped"
UNFINISHED = "unfinished"
FINAL = frozenset({SUCCEEDED, FAILED, SKIPPED})


@dataclass
class NodeProgress:
    """One node. ``request``: the id of what it asks a person.

    The counts are a group's: of its members, the nodes whose ends its barrier waits for.
    """

    id: str
    members: int = 0
    state: str = WAITING
    attempt: int = 0
    worker: str = ""
    started: float | None = None
    ended: float | None = None
    duration: float = 0.0
    reason: str = ""
    request: str = ""
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0
    retried: int = 0
    active: int = 0

    @property
    def is_group(self) -> bool:
        return self.members > 0

    @property
    def done(self) -> int:
        """How many members have ended, in whatever way."""
        return self.succeeded + self.failed + self.skipped

    def seconds(self, now: float) -> float:
        """How long it ran, or has been running at ``now``."""
        if self.duration:
            return self.duration
        if self.started is None:
            return 0.0
        return max(0.0, (now if self.ended is None else self.ended) - self.started)


@dataclass
class ProgressModel:
    """Feed it a run's events in their order. An event that it does not know changes nothing."""

    plan: Plan
    nodes: dict[str, NodeProgress] = field(init=False)
    status: RunStatus = RunStatus.RUNNING
    reason: str = ""
    started: float | None = None
    ended: float | None = None
    retries: int = 0
    missing_queues: tuple[str, ...] = ()
    refusal: str = ""
    differing: str = ""
    failures: list[NodeProgress] = field(default_factory=list)
    late: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.nodes = {node.id: NodeProgress(node.id, members=len(node.exits)) for node in self.plan.nodes.values()}

    def feed(self, record: EventRecord) -> NodeProgress | None:
        """Takes one event in; returns the node that it tells of, if it is one of the plan's."""
        event = str(record["event"])
        at = float(record.get("at", 0.0))
        if event == "workers_missing":
            self.missing_queues = tuple(record.get("queues", ()))
            return None
        if event == "store_refuses":
            self.refusal = str(record.get("reason", ""))
            return None
        self.missing_queues, self.refusal = (), ""
        if event == "code_differs":
            self.differing = str(record.get("reason", ""))
        kind, _, verb = event.partition("_")
        if kind == "run":
            self._run(verb, at, record)
            return None
        node = self.nodes.get(node_of(str(record.get("node", ""))))
        if node is not None and kind in ("node", "group"):
            # A node that ran is not undone by a later pass that leaves it out.
            if verb != SKIPPED or node.state not in (SUCCEEDED, FAILED):
                self._node(node, verb, at, record)
        elif kind == "feedback":
            self._feedback(node, verb, record)
        return node

    @property
    def has_ended(self) -> bool:
        return self.status.is_terminal

    @property
    def outermost(self) -> Iterator[NodeProgress]:
        """The nodes that are in no group, from the start on: what a person sees as the steps."""
        return (self.nodes[name] for name in steps(self.plan))

    @property
    def tasks(self) -> Iterator[NodeProgress]:
        return (node for node in self.nodes.values() if not node.is_group)

    def state_of(self, node: NodeProgress) -> str:
        """The node's state; of one that was cut off by the run's end, that."""
        return UNFINISHED if self.has_ended and node.state in (QUEUED, RUNNING, ASKING) else node.state

    def count(self, state: str) -> int:
        """How many tasks are in a state."""
        return sum(self.state_of(node) == state for node in self.tasks)

    def slowest(self, count: int) -> list[NodeProgress]:
        """The tasks that took longest, the slowest first."""
        ended = [node for node in self.tasks if node.state in (SUCCEEDED, FAILED)]
        return sorted(ended, key=lambda node: -node.duration)[:count]

    def seconds(self, now: float) -> float:
        """How long the run took, or has taken at ``now``."""
        if self.started is None:
            return 0.0
        return max(0.0, (now if self.ended is None else self.ended) - self.started)

    def _run(self, verb: str, at: float, record: EventRecord) -> None:
        if verb == "started":
            self.started = at
        elif verb == "retried":
            self._retry()
        elif verb in set(RunStatus) and RunStatus(verb).is_terminal:
            self.status = RunStatus(verb)
            self.reason = str(record.get("reason", ""))
            self.ended = at

    def _retry(self) -> None:
        """The run goes on: what failed or was cut off is waited for again."""
        self.status, self.reason, self.ended = RunStatus.RUNNING, "", None
        self.failures.clear()
        self.late.clear()
        for node in self.nodes.values():
            if node.state in (FAILED, QUEUED, RUNNING, ASKING):
                node.state, node.started, node.ended, node.duration = WAITING, None, None, 0.0
        for group in (node for node in self.nodes.values() if node.is_group):
            states = [self.nodes[member].state for member in self.plan[group.id].exits]
            group.succeeded, group.failed, group.skipped = (states.count(one) for one in (SUCCEEDED, FAILED, SKIPPED))
            group.active = 0

    def _feedback(self, node: NodeProgress | None, verb: str, record: EventRecord) -> None:
        """The run is waiting as long as somebody is late with an answer."""
        request = str(record.get("request", ""))
        if verb == "expired":
            self.late.add(request)
        else:
            self.late.discard(request)
        if not self.has_ended:
            self.status = RunStatus.WAITING if self.late else RunStatus.RUNNING
        if node is not None and verb in ("requested", "answered"):
            running = node.state == RUNNING
            node.state = ASKING if verb == "requested" else QUEUED
            node.request = request if verb == "requested" else ""
            self._count_active(node, -int(running))

    def _node(self, node: NodeProgress, verb: str, at: float, record: EventRecord) -> None:
        before = node.state
        node.attempt = int(record.get("attempt", 0)) or node.attempt
        node.worker = str(record.get("worker", "")) or node.worker
        if verb == "queued":
            node.state = QUEUED
        elif verb in ("started", "opened"):
            node.state = RUNNING
            if verb == "opened":  # maybe again, in a later pass
                node.succeeded = node.failed = node.skipped = 0
            node.started = at if node.started is None or not node.is_group else node.started
            self._open(node, at)
        elif verb in ("retried", "lost", "returned"):
            node.state = QUEUED
            node.reason = str(record.get("reason", ""))
            self._retried(node)
        elif verb in FINAL:
            node.state = verb
            node.ended = at
            node.duration = float(record.get("duration", 0.0))
            node.reason = str(record.get("reason", "")).removeprefix(f"'{node.id}' failed: ")
            self._ended(node)
        self._count_active(node, int(node.state == RUNNING) - int(before == RUNNING))

    def _open(self, node: NodeProgress, at: float) -> None:
        """With a group, its first nodes are on their way, and groups among them are open."""
        for entry in self.plan[node.id].entries:
            inner = self.nodes[entry]
            if inner.state == WAITING:
                inner.state = RUNNING if inner.is_group else QUEUED
                inner.started = at if inner.is_group else None
                self._open(inner, at)

    def _ended(self, node: NodeProgress) -> None:
        spec = self.plan[node.id]
        if node.state == FAILED and not node.is_group:
            self.failures.append(node)
        if spec.group is None or not spec.is_exit:
            return
        group = self.nodes[spec.group]
        group.succeeded += node.state == SUCCEEDED
        group.failed += node.state == FAILED
        group.skipped += node.state == SKIPPED

    def _retried(self, node: NodeProgress) -> None:
        self.retries += 1
        for outer in self._around(node):
            outer.retried += 1

    def _count_active(self, node: NodeProgress, change: int) -> None:
        if change and not node.is_group:
            for outer in self._around(node):
                outer.active += change

    def _around(self, node: NodeProgress) -> Iterator[NodeProgress]:
        """The groups that the node is in, the innermost first."""
        group = self.plan[node.id].group
        while group is not None:
            yield self.nodes[group]
            group = self.plan[group].group


def steps(plan: Plan) -> list[str]:
    """The nodes that are in no group, each after those it waits for. A plan out of the store has lost its order."""
    waiting = {node.id: node.needs for node in plan.nodes.values() if node.group is None}
    ready = [plan.start]
    ordered: dict[str, None] = {}
    while ready:
        name = ready.pop(0)
        ordered[name] = None
        for successor in plan[name].successors:
            waiting[successor] -= 1
            if waiting[successor] == 0:
                ready.append(successor)
    return [*ordered, *(name for name in waiting if name not in ordered)]
