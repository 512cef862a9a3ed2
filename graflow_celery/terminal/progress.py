"""How far a run is: a reducer from its events. It prints nothing and reads no clock.

An event costs the same however many members a group has: what is shown of a group is counted as its members end.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from graflow_celery.core.activation import item_of, node_of
from graflow_celery.core.plan import NodeSpec, Plan
from graflow_celery.core.state import RunStatus
from graflow_celery.engine.timing import Chronicle, Timing
from graflow_celery.ports import EventRecord
from graflow_celery.terminal.estimate import left_of

WAITING, QUEUED, RUNNING = "waiting", "queued", "running"
ASKING = "asking"  # it waits for a person
SUCCEEDED, FAILED, SKIPPED = "succeeded", "failed", "skipped"
UNFINISHED = "unfinished"
FINAL = frozenset({SUCCEEDED, FAILED, SKIPPED})
#: A group's rate is that of so many members, the last that ended.
RECENT = 50
SLOW = 5

#: The plan of a graph by its hash, as `ports.Graphs.plan_for` has it; None if it cannot be had.
PlanFor = Callable[[str], Plan | None]


@dataclass
class NodeProgress:
    """One node. ``request``: the id of what it asks a person.

    What follows ``request`` is a group's: counts of its members, the nodes whose ends its barrier waits for; those of
    its tasks that run; and when the last members ended.
    """

    id: str
    members: int = 0
    is_group: bool = False
    mapped: bool = False
    label: str = ""
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
    running: dict[str, NodeProgress] = field(default_factory=dict, repr=False)
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT), repr=False)

    @property
    def active(self) -> int:
        """How many of its tasks run."""
        return len(self.running)

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

    def rate(self, now: float) -> float:
        """Members that end in a second, of late; 0 while it cannot be told."""
        if len(self.recent) < 2:
            return 0.0
        between = max(now, self.recent[-1]) - self.recent[0]
        return (len(self.recent) - 1) / between if between > 0 else 0.0

    def left(self, now: float) -> float | None:
        """Seconds until its last member ends if they go on like this; None while it cannot be told."""
        rate = self.rate(now)
        return None if not rate else max(0, self.members - self.done) / rate

    def clear(self) -> None:
        """The group opens, maybe again in a later pass: nothing in it has ended."""
        self.succeeded = self.failed = self.skipped = 0
        self.recent.clear()


@dataclass
class ProgressModel:
    """Feed it a run's events in their order. An event that it does not know changes nothing.

    Args:
        plan: the workflow as written.
        plan_for: where plans of tasks come from that are added while the run goes on; without it they are not shown.
        earlier: how many seconds nodes took in an earlier run of the workflow, by id.
    """

    plan: Plan
    plan_for: PlanFor | None = field(default=None, compare=False)
    earlier: Mapping[str, float] = field(default_factory=dict)
    nodes: dict[str, NodeProgress] = field(init=False)
    specs: dict[str, NodeSpec] = field(init=False)
    outermost: list[NodeProgress] = field(init=False)
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
    _slow: list[NodeProgress] = field(default_factory=list)
    _chronicle: Chronicle = field(init=False, compare=False)

    def __post_init__(self) -> None:
        self.nodes, self.specs = {}, {}
        self._add(self.plan)
        self.outermost = [self.nodes[name] for name in steps(self.plan)]
        self._chronicle = Chronicle(self.specs)

    def feed(self, record: EventRecord) -> NodeProgress | None:
        """Takes one event in; returns the node that it tells of, if it is one of the run's."""
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
        if record.get("graph"):
            self._extend(str(record["graph"]), str(record.get("node", "")))
        self._chronicle.feed(record)
        kind, _, verb = event.partition("_")
        if kind == "run":
            self._run(verb, at, record)
            return None
        node = self._found(node_of(str(record.get("node", ""))))
        if node is not None and event == "map_expanded":
            node.members = int(record.get("count", 0))
        elif node is not None and kind in ("node", "group"):
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
    def tasks(self) -> Iterator[NodeProgress]:
        return (node for node in self.nodes.values() if not node.is_group)

    @property
    def timing(self) -> Timing:
        """Where the time went, up to the last event."""
        return self._chronicle.timing()

    def state_of(self, node: NodeProgress) -> str:
        """The node's state; of one that was cut off by the run's end, that."""
        return UNFINISHED if self.has_ended and node.state in (QUEUED, RUNNING, ASKING) else node.state

    def count(self, state: str) -> int:
        """How many tasks are in a state."""
        return self.counts()[state]

    def counts(self) -> Counter[str]:
        """How many tasks are in each state; of a mapped task's members, those that have been heard of."""
        return Counter(self.state_of(node) for node in self.tasks)

    @property
    def total(self) -> int:
        """How many tasks there are, as far as it is known by now."""
        written = sum(not node.is_group and item_of(node.id) is None for node in self.nodes.values())
        return written + sum(node.members for node in self.nodes.values() if node.mapped)

    def slowest(self, count: int) -> list[NodeProgress]:
        """The tasks that took longest, the slowest first; five at most."""
        return self._slow[:count]

    def seconds(self, now: float) -> float:
        """How long the run took, or has taken at ``now``."""
        if self.started is None:
            return 0.0
        return max(0.0, (now if self.ended is None else self.ended) - self.started)

    def left(self, now: float) -> float | None:
        """Seconds until the run's end, by what its nodes took so far or in an earlier run; None if that is too little.

        It looks at every node that is in no group.
        """
        return None if self.has_ended else left_of(self.outermost, self.specs, self.earlier, now)

    def group_of(self, node: NodeProgress) -> str | None:
        """The id of the group that a node is in."""
        spec = self._spec(node.id)
        return None if spec is None else spec.group

    def _add(self, plan: Plan) -> list[str]:
        """Takes a plan's nodes in; returns the ids of those that were not known."""
        new = [spec for spec in plan.own.values() if spec.id not in self.nodes]
        for spec in new:
            self.specs[spec.id] = spec
            self.nodes[spec.id] = NodeProgress(
                spec.id, members=len(spec.exits), is_group=spec.is_group, mapped=spec.map is not None
            )
        return [spec.id for spec in new]

    def _extend(self, graph: str, key: str) -> None:
        """Takes in the tasks that an attempt added, when the first event tells of one."""
        if self.plan_for is None or self._found(node_of(key)) is not None:
            return
        plan = self.plan_for(graph)
        if plan is None:
            return
        for name in self._add(plan):
            owner = self.specs[name].owner
            if owner is None:
                continue
            adder = node_of(owner.node)
            self.nodes[name].label = f"+ added by {adder}"
            outer = self._outermost_of(adder)
            where = next((index for index, node in enumerate(self.outermost) if node.id == outer), -1)
            self.outermost.insert(where + 1 or len(self.outermost), self.nodes[name])

    def _outermost_of(self, name: str) -> str:
        spec = self._spec(name)
        while spec is not None and spec.group is not None:
            name, spec = spec.group, self.specs.get(spec.group)
        return name

    def _found(self, name: str) -> NodeProgress | None:
        """The node of an id; a member of a mapped task is made when it is heard of."""
        node = self.nodes.get(name)
        item = item_of(name) if node is None else None
        if item is not None and item[0] in self.nodes and self.nodes[item[0]].mapped:
            node = self.nodes[name] = NodeProgress(name)
        return node

    def _spec(self, name: str) -> NodeSpec | None:
        spec, item = self.specs.get(name), item_of(name)
        if spec is None and item is not None and item[0] in self.specs:
            return NodeSpec(name, group=item[0], exit_index=item[1])
        return spec

    def _run(self, verb: str, at: float, record: EventRecord) -> None:
        if verb in ("submitted", "resumed"):
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
            node.running.clear()
            if node.is_group:
                node.clear()
            if node.state in (FAILED, QUEUED, RUNNING, ASKING):
                node.state, node.started, node.ended, node.duration = WAITING, None, None, 0.0
        for node in self.nodes.values():
            self._count_end(node)

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
            node.state = ASKING if verb == "requested" else QUEUED
            node.request = request if verb == "requested" else ""
            self._note_running(node)

    def _node(self, node: NodeProgress, verb: str, at: float, record: EventRecord) -> None:
        node.attempt = int(record.get("attempt", 0)) or node.attempt
        node.worker = str(record.get("worker", "")) or node.worker
        if verb == "queued":
            node.state = QUEUED
        elif verb in ("started", "opened"):
            node.state = RUNNING
            if verb == "opened":
                node.clear()
            if node.started is None or not node.is_group:
                node.started, node.ended, node.duration = at, None, 0.0
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
            self._ended(node, at)
        self._note_running(node)

    def _open(self, node: NodeProgress, at: float) -> None:
        """With a group, its first nodes are on their way, and groups among them are open."""
        pending = [node]
        while pending:
            group = pending.pop()
            for entry in self.specs[group.id].entries if group.is_group else ():
                inner = self.nodes[entry]
                if inner.state == WAITING:
                    inner.state = RUNNING if inner.is_group else QUEUED
                    inner.started = at if inner.is_group else None
                    pending.append(inner)

    def _ended(self, node: NodeProgress, at: float) -> None:
        if node.state == FAILED and not node.is_group:
            self.failures.append(node)
        if node.state != SKIPPED and not node.is_group:
            others = [one for one in self._slow if one is not node]
            self._slow = heapq.nlargest(SLOW, [*others, node], key=lambda one: one.duration)
        group = self._count_end(node)
        if group is not None:
            group.recent.append(at)

    def _count_end(self, node: NodeProgress) -> NodeProgress | None:
        """Counts a member that has ended in its group, which is the answer."""
        spec = self._spec(node.id)
        if spec is None or spec.group is None or not spec.is_exit or node.state not in FINAL:
            return None
        group = self.nodes[spec.group]
        group.succeeded += node.state == SUCCEEDED
        group.failed += node.state == FAILED
        group.skipped += node.state == SKIPPED
        return group

    def _retried(self, node: NodeProgress) -> None:
        self.retries += 1
        for outer in self._around(node):
            outer.retried += 1

    def _note_running(self, node: NodeProgress) -> None:
        if node.is_group:
            return
        for outer in self._around(node):
            if node.state == RUNNING:
                outer.running[node.id] = node
            else:
                outer.running.pop(node.id, None)

    def _around(self, node: NodeProgress) -> Iterator[NodeProgress]:
        """The groups that the node is in, the innermost first."""
        group = self.group_of(node)
        while group is not None:
            yield self.nodes[group]
            group = self.specs[group].group


def steps(plan: Plan) -> list[str]:
    """The nodes that are in no group, each after those it waits for. A plan out of the store has lost its order."""
    waiting = {node.id: node.needs for node in plan.nodes.values() if node.group is None}
    ready = deque([plan.start])
    ordered: dict[str, None] = {}
    while ready:
        name = ready.popleft()
        ordered[name] = None
        for successor in plan[name].successors:
            waiting[successor] -= 1
            if waiting[successor] == 0:
                ready.append(successor)
    return [*ordered, *(name for name in waiting if name not in ordered)]
