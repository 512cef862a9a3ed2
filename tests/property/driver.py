"""Drives a run's state machine through random orders of events, with duplicates and late comers mixed in.

A barrier is closed when the command to do so is carried out. A run that waits for one that nobody closes fails the
test. Timers are due at any time.

Processes die while they run code; messages get lost, or come after somebody took them for lost; workers give back what
they run. A monitor tells of it later, at any time, and what was taken for dead ends later still.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from graflow_celery.core.activation import key_of, node_of
from graflow_celery.core.commands import (
    CloseBarrier,
    Command,
    DispatchNode,
    ExpireFeedback,
    ExpireGroup,
    FinishNode,
    OpenGroup,
    OpenMembers,
    SkipNode,
)
from graflow_celery.core.events import (
    BarrierReached,
    CancelRequested,
    Event,
    FeedbackAnswered,
    FeedbackExpired,
    FeedbackRequested,
    MapExpanded,
    NodeFailed,
    NodeFinished,
    NodeIterated,
    NodeLost,
    NodeReturned,
    NodeSkipped,
    NodeSucceeded,
    RunStarted,
)
from graflow_celery.core.extend import extend
from graflow_celery.core.place import Place
from graflow_celery.core.plan import NodeSpec, Plan
from graflow_celery.core.policy import MemberOutcome
from graflow_celery.core.scheduler import Scheduler
from graflow_celery.core.state import Applied, Leave, NodeState, RunState, Transition
from tests.property.laws import check_step
from tests.property.model import acts_of
from tests.property.shapes import END, Act, Chain, Group, Mapped, Workflow, chained


@dataclass(frozen=True)
class Begin:
    """An attempt asks for leave to run."""

    plan: Plan
    node: str
    attempt: int
    worker: str
    scopes: tuple[str, ...]
    graph: str


Step = Begin | Transition
#: Sees every step, what the memory answered to it, and the state after it.
Observe = Callable[[Step, Leave | Applied | None, RunState], None]


@dataclass(frozen=True)
class _Code:
    """Code that runs in a worker: its end is still to come."""

    node: str
    attempt: int
    graph: str
    retries: int
    worker: str


@dataclass(frozen=True)
class _Gone:
    """An attempt that a monitor is to find: its process died, or its worker gave it back (``returned``).

    Nobody has begun it if it has no ``worker``: its message got lost.
    """

    node: str
    attempt: int
    graph: str
    worker: str
    returned: bool = True


@dataclass(frozen=True)
class _Zombie:
    """What was taken for dead, and has an end all the same."""

    node: str
    attempt: int
    graph: str
    begun: bool


@dataclass(frozen=True)
class _Answer:
    node: str
    attempt: int
    graph: str


#: Commands that lead to an event of their own, which takes them out of the outbox.
ANSWERED = SkipNode | FinishNode | CloseBarrier | ExpireGroup | ExpireFeedback
Pending = Command | _Code | _Gone | _Zombie | _Answer
#: Another worker than those that run anything.
NOBODY = "nobody"


class Driver:
    """Carries commands out in random order until none is left.

    ``cancel_after``: after so many steps somebody cancels the run. ``noise``: how much of everything is done twice.
    """

    def __init__(
        self, plan: Plan, workflow: Workflow, seed: int, observe: Observe, cancel_after: int = -1, noise: float = 0.2
    ) -> None:
        self.base = plan
        self.state = RunState()
        self.ran: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.log: list[Step] = []
        self.specs: dict[str, NodeSpec] = dict(plan.nodes)
        self._plans = {"": plan}
        self._workflow = workflow
        self._sizes = dict(_sizes(workflow))
        self._random = random.Random(seed)
        self._observe = observe
        self._cancel_after = cancel_after
        self._noise = noise
        self._steps = 0
        self._last = Applied()
        self._pending: list[Pending] = []
        self._past: list[tuple[Plan, Event]] = []
        self._played: Counter[str] = Counter()

    def run(self) -> RunState:
        while self.step():
            pass
        if self._past:
            self._repeat(*self._random.choice(self._past))
        return self.state

    def step(self) -> bool:
        """Carries one command out; False if none is left, or the run has ended."""
        if not self.log:
            self._deliver("", RunStarted())
        if not self._pending or self.state.status.is_terminal:
            return False
        self._steps += 1
        if self._steps == self._cancel_after:
            self._deliver("", CancelRequested("enough"))
        item = self._pending.pop(self._random.randrange(len(self._pending)))
        if not isinstance(item, _Code | _Gone | _Zombie | _Answer) and self._random.random() < self._noise:
            self._pending.append(item)
        self._carry_out(item)
        if isinstance(item, ANSWERED) or (isinstance(item, OpenGroup) and self.specs[node_of(item.group)].map):
            assert item not in self.state.outbox or self._last.stale, f"{item} was carried out and is still to be sent"
        if self._past and self._random.random() < self._noise:
            self._repeat(*self._random.choice(self._past))
        if self._random.random() < self._noise:
            self._accuse()
        return True

    def _repeat(self, plan: Plan, event: Event) -> None:
        before = self.state.copy()
        self._deliver("", event, plan=plan, again=True)
        expected = (before.nodes, before.outstanding, before.counts, before.ended, before.jumps, before.outbox)
        now = self.state
        assert expected == (now.nodes, now.outstanding, now.counts, now.ended, now.jumps, now.outbox), f"twice: {event}"

    def _accuse(self) -> None:
        """A monitor that is mistaken in who runs a task, or in whether anybody does: nothing comes of it."""
        key, record = self._random.choice(list(self.state.nodes.items()))
        if not record.attempt or Place.of(self._plans[record.graph], key).spec.is_group:
            return
        holders = {NOBODY, "w0", "w1"} | ({""} if record.state is not NodeState.QUEUED else set())
        holder = self._random.choice(sorted(holders - {record.worker}))
        attempt = self._random.choice([record.attempt, record.attempt, max(1, record.attempt - 1)])
        event: Event = NodeReturned(key, attempt, "mistaken", holder)
        if self._random.random() < 0.5:
            event = NodeLost(key, attempt, record.losses, 99, "mistaken", holder)
        accused = self._deliver(record.graph, event, again=True)
        assert accused.stale, f"{key} was taken from {record.worker} although {holder} had been accused"

    def _carry_out(self, item: Pending) -> None:
        match item:
            case DispatchNode() | _Code() | _Gone() | _Zombie() | _Answer():
                self._work(item)
            case OpenGroup(group, graph):
                self._open(Place.of(self._plans[graph], group), graph)
            case OpenMembers(group, first, count, _, graph):
                prefix, suffix = Place.of(self._plans[graph], group).members
                since = self._plans[graph].first
                self._pending += [
                    DispatchNode(f"{prefix}{index}{suffix}", since, graph) for index in range(first, first + count)
                ]
            case CloseBarrier(group, graph) | ExpireGroup(group, graph):
                self._close(group, graph)
            case SkipNode(node, graph):
                applied = self._deliver(graph, NodeSkipped(node))
                self.skipped[node_of(node)] += not applied.stale
            case FinishNode(node, attempt, group, failure, goto, leaves, graph):
                self._deliver(graph, NodeFinished(node, attempt, group, failure, goto, leaves))
            case ExpireFeedback(node, attempt, request, graph):
                self._deliver(graph, FeedbackExpired(node, attempt, request))
            case _:
                raise AssertionError(f"nobody carries {item} out")

    def _work(self, item: DispatchNode | _Code | _Gone | _Zombie | _Answer) -> None:
        match item:
            case DispatchNode():
                self._receive(item)
            case _Code():
                self._end(item)
            case _Gone():
                self._replace(item)
            case _Zombie():
                self._come_back(item)
            case _Answer(node, attempt, graph):
                self._deliver(graph, FeedbackAnswered(node, attempt, "request"))

    def _open(self, place: Place, graph: str) -> None:
        if place.spec.map is not None:
            self._deliver(graph, MapExpanded(place.key, self._sizes[place.spec.id]))
            return
        inside = [place.inside(entry) for entry in place.spec.entries if not place.plan[entry].is_group]
        self._pending += [DispatchNode(entry.key, place.plan.first, graph) for entry in inside]

    def _close(self, group: str, graph: str) -> None:
        place = Place.of(self._plans[graph], group)
        size = self._sizes.get(place.spec.id, 0)
        members = {node: place.inside(node).key for node in place.spec.exits}
        members |= {f"{place.spec.id}[{i}]": key_of(f"{place.spec.id}[{i}]", (*place.passes, "0")) for i in range(size)}
        records = {node: self.state.nodes.get(key) for node, key in members.items()}
        outcomes = [
            MemberOutcome(node, record is not None and record.state is NodeState.SUCCEEDED)
            for node, record in records.items()
        ]
        shortfall = place.spec.policy.judge(outcomes)
        goto = self.state.jumps.get(group, ()) if shortfall is None else ()
        self._deliver(graph, BarrierReached(group, shortfall, goto))

    def _receive(self, message: DispatchNode) -> None:
        """A worker gets the message; or it gets lost, or seems to be."""
        if self._random.random() < self._noise / 2:
            self._pending.append(_Gone(message.node, message.attempt, message.graph, ""))
            if self._random.random() < 0.5:
                return
        if (leave := self._begin(message, worker := self._random.choice(["w0", "w1"]))) is not None:
            self._pending.append(_Code(message.node, message.attempt, message.graph, leave.retries, worker))

    def _begin(self, message: DispatchNode, worker: str) -> Leave | None:
        node, attempt, graph = message.node, message.attempt, message.graph
        plan = self._plans[graph]
        asked = Begin(plan, node, attempt, worker, Place.of(plan, node).scopes, graph)
        before = self.state.copy()
        leave = self.state.begin(node, attempt, worker, asked.scopes, graph)
        check_step(self.specs, before, self.state)
        self.log.append(asked)
        self._observe(asked, leave, self.state)
        return leave

    def _replace(self, gone: _Gone) -> None:
        """The monitor, or the worker itself, tells of an attempt that will not come to its end."""
        node, attempt, graph, worker = gone.node, gone.attempt, gone.graph, gone.worker
        if gone.returned:
            applied = self._deliver(graph, NodeReturned(node, attempt, "its message left the queue", worker))
        else:
            record = self.state.nodes[node]
            lost = NodeLost(node, attempt, record.losses, 99, "its worker died", worker, self._random.random())
            applied = self._deliver(graph, lost)
        if applied.stale:
            return
        if not gone.returned:
            self._played[node] += 1
            self.ran[Place.of(self._plans[graph], node).spec.id] += 1
        if self._random.random() < 0.5:
            self._pending.append(_Zombie(node, attempt, graph, begun=bool(worker)))

    def _come_back(self, zombie: _Zombie) -> None:
        node, attempt, graph = zombie.node, zombie.attempt, zombie.graph
        if not zombie.begun:
            assert self._begin(DispatchNode(node, attempt, graph), "w0") is None, f"{node} began twice"
            return
        ends: list[Event] = [
            NodeSucceeded(node, attempt, (END,) if END in self._plans[graph].nodes else ()),
            NodeFailed(node, attempt, "late"),
            NodeIterated(node, attempt),
            FeedbackRequested(node, attempt, "request", None),
        ]
        event = self._random.choice(ends)
        assert self._deliver(graph, event).stale, f"what came back counted: {event}"

    def _end(self, code: _Code) -> None:
        """The code does its next act."""
        node, attempt, graph = code.node, code.attempt, code.graph
        if self._random.random() < self._noise / 4:
            self._pending.append(_Gone(node, attempt, graph, code.worker))
            return
        place = Place.of(self._plans[graph], node)
        acts = acts_of(self._workflow, place.spec.id, sum(_number(item) for item in place.passes))
        act = acts[self._played[node]]
        if act.kind == "lose":  # it counts when somebody notices
            self._pending.append(_Gone(node, attempt, graph, code.worker, returned=False))
            return
        self._played[node] += 1
        self.ran[place.spec.id] += 1
        match act.kind:
            case "ask":
                asked = FeedbackRequested(node, attempt, "request", self._random.choice([None, 1.0]))
                if not self._deliver(graph, asked).stale:
                    self._pending.append(_Answer(node, attempt + 1, graph))
            case "iterate":
                self._deliver(graph, NodeIterated(node, attempt))
            case "fail":
                self._deliver(graph, NodeFailed(node, attempt, "boom", retries=code.retries))
            case "add":
                self._add(place, attempt, act)
            case "succeed" | "jump":
                self._deliver(graph, NodeSucceeded(node, attempt, act.goto))

    def _add(self, place: Place, attempt: int, act: Act) -> None:
        added = extend(place, attempt, [chained(member) for member in act.added], act.leaves)
        self._plans[added.key] = self.base.extended(added.key, added.plan.nodes)
        self.specs |= added.plan.nodes
        here = place.plan.extended(added.key, added.plan.nodes)
        event = NodeSucceeded(place.key, attempt, act.goto, added.key)
        self._deliver(place.graph, event, plan=here)

    def _deliver(self, graph: str, event: Event, *, plan: Plan | None = None, again: bool = False) -> Applied:
        """Decides, applies and checks one event."""
        plan = plan or self._plans[graph]
        if not isinstance(event, RunStarted) and not again:
            self._past.append((plan, event))
        transition = Scheduler().decide(plan, event)
        before = self.state.copy()
        applied = self._last = self.state.apply(transition)
        assert not applied.stale or before == self.state, "stale, and yet something changed"
        check_step(self.specs, before, self.state, None if applied.stale else transition)
        self.log.append(transition)
        self._observe(transition, applied, self.state)
        self._pending += [emission.command for emission in applied.emissions]
        return applied


def replay(log: list[Step]) -> RunState:
    """The state that the same steps lead to once more."""
    state = RunState()
    for step in log:
        if isinstance(step, Begin):
            state.begin(step.node, step.attempt, step.worker, step.scopes, step.graph)
        else:
            state.apply(step)
    return state


def _number(item: str) -> int:
    number = item.partition("~")[0]
    return int(number) if number.isdigit() else 0


def _sizes(workflow: Workflow) -> Iterator[tuple[str, int]]:
    added = [act.added for acts in workflow.acts.values() for act in acts]
    chains: list[Chain] = [tuple(workflow.shapes.values()), *(member for members in added for member in members)]
    while chains:
        for shape in chains.pop():
            if isinstance(shape, Mapped):
                yield shape.id, shape.size
            elif isinstance(shape, Group):
                chains += shape.members
