"""Drives a run's state machine through random orders of events, with duplicates and late comers mixed in.

Barriers are fired as on the workers: by a chord, which counts the messages whose end it may count, or directly where
one will not be counted. A run that waits for a chord that does not fire fails the test. Timers are due at any time.
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
from tests.property.shapes import Act, Chain, Group, Mapped, Workflow, chained


@dataclass(frozen=True)
class Begin:
    """An attempt asks for leave to run."""

    plan: Plan
    node: str
    attempt: int
    redelivered: bool
    scopes: tuple[str, ...]
    graph: str


Step = Begin | Transition
#: Sees every step, what the memory answered to it, and the state after it.
Observe = Callable[[Step, Leave | Applied | None, RunState], None]


@dataclass(frozen=True)
class _Message:
    """A message with an attempt: ``redelivered`` by the broker after its process died."""

    command: DispatchNode
    redelivered: bool = False


@dataclass(frozen=True)
class _Code:
    """Code that runs in a worker: its end is still to come."""

    node: str
    attempt: int
    graph: str
    retries: int


@dataclass(frozen=True)
class _Answer:
    node: str
    attempt: int
    graph: str


#: Commands that lead to an event of their own, which takes them out of the outbox.
ANSWERED = SkipNode | FinishNode | CloseBarrier | ExpireGroup | ExpireFeedback
Pending = Command | _Message | _Code | _Answer


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
        self._chords: Counter[str] = Counter()
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
        if not isinstance(item, _Message | _Code | _Answer) and self._random.random() < self._noise:
            self._pending.append(item)
        self._carry_out(item)
        if isinstance(item, ANSWERED) or (isinstance(item, OpenGroup) and self.specs[node_of(item.group)].map):
            assert item not in self.state.outbox or self._last.stale, f"{item} was carried out and is still to be sent"
        if self._past and self._random.random() < self._noise:
            self._repeat(*self._random.choice(self._past))
        return True

    def _repeat(self, plan: Plan, event: Event) -> None:
        before = self.state.copy()
        self._deliver("", event, plan=plan, again=True)
        expected = (before.nodes, before.outstanding, before.counts, before.ended, before.jumps, before.outbox)
        now = self.state
        assert expected == (now.nodes, now.outstanding, now.counts, now.ended, now.jumps, now.outbox), f"twice: {event}"

    def _carry_out(self, item: Pending) -> None:
        match item:
            case DispatchNode():
                self._begin(_Message(item))
            case _Message():
                self._begin(item)
            case _Code():
                self._end(item)
            case _Answer(node, attempt, graph):
                self._deliver(graph, FeedbackAnswered(node, attempt, "request"))
            case OpenGroup(group, graph):
                self._open(Place.of(self._plans[graph], group), graph)
            case OpenMembers(group, first, count, _, graph):
                prefix, suffix = Place.of(self._plans[graph], group).members
                since = self._plans[graph].first
                self._pending += [
                    DispatchNode(f"{prefix}{index}{suffix}", since, graph) for index in range(first, first + count)
                ]
            case CloseBarrier(group, graph):
                self._close(group, graph)
            case ExpireGroup(group, graph):
                self._close(group, graph, counted=False)
            case SkipNode(node, graph):
                applied = self._deliver(graph, NodeSkipped(node))
                self.skipped[node_of(node)] += not applied.stale
            case FinishNode(node, attempt, group, failure, goto, leaves, graph):
                self._deliver(graph, NodeFinished(node, attempt, group, failure, goto, leaves))
            case ExpireFeedback(node, attempt, request, graph):
                self._deliver(graph, FeedbackExpired(node, attempt, request))
            case _:
                raise AssertionError(f"nobody carries {item} out")

    def _open(self, place: Place, graph: str) -> None:
        if place.spec.map is not None:
            self._deliver(graph, MapExpanded(place.key, self._sizes[place.spec.id]))
            return
        inside = [place.inside(entry) for entry in place.spec.entries if not place.plan[entry].is_group]
        self._pending += [DispatchNode(entry.key, place.plan.first, graph) for entry in inside]

    def _close(self, group: str, graph: str, counted: bool = True) -> None:
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
        self._deliver(graph, BarrierReached(group, shortfall, goto, counted), is_message=counted)

    def _begin(self, message: _Message) -> None:
        node, attempt, graph = message.command.node, message.command.attempt, message.command.graph
        plan = self._plans[graph]
        place = Place.of(plan, node)
        asked = Begin(plan, node, attempt, message.redelivered, place.scopes, graph)
        before = self.state.copy()
        leave = self.state.begin(node, attempt, message.redelivered, place.scopes, graph)
        check_step(self.specs, before, self.state)
        self.log.append(asked)
        self._observe(asked, leave, self.state)
        if leave is None:
            return
        if leave.losses and self._deliver(graph, NodeLost(node, attempt, leave.losses, 99), is_message=True).ended_node:
            return
        self._pending.append(_Code(node, attempt, graph, leave.retries))

    def _end(self, code: _Code) -> None:
        """The code does its next act."""
        node, attempt, graph = code.node, code.attempt, code.graph
        place = Place.of(self._plans[graph], node)
        acts = acts_of(self._workflow, place.spec.id, sum(_number(item) for item in place.passes))
        act = acts[self._played[node]]
        self._played[node] += 1
        self.ran[place.spec.id] += 1
        match act.kind:
            case "lose":
                self._pending.append(_Message(DispatchNode(node, attempt, graph), redelivered=True))
            case "ask":
                asked = FeedbackRequested(node, attempt, "request", self._random.choice([None, 1.0]))
                if not self._deliver(graph, asked, is_message=True).stale:
                    self._pending.append(_Answer(node, attempt + 1, graph))
            case "iterate":
                self._deliver(graph, NodeIterated(node, attempt), is_message=True)
            case "fail":
                self._deliver(graph, NodeFailed(node, attempt, "boom", retries=code.retries), is_message=True)
            case "add":
                self._add(place, attempt, act)
            case "succeed" | "jump":
                self._deliver(graph, NodeSucceeded(node, attempt, act.goto), is_message=True)

    def _add(self, place: Place, attempt: int, act: Act) -> None:
        added = extend(place, attempt, [chained(member) for member in act.added], act.leaves)
        self._plans[added.key] = self.base.extended(added.key, added.plan.nodes)
        self.specs |= added.plan.nodes
        here = place.plan.extended(added.key, added.plan.nodes)
        event = NodeSucceeded(place.key, attempt, act.goto, added.key)
        self._deliver(place.graph, event, is_message=True, plan=here)

    def _deliver(
        self, graph: str, event: Event, *, is_message: bool = False, plan: Plan | None = None, again: bool = False
    ) -> Applied:
        """Decides, applies and checks one event. ``is_message``: the Celery message of a node or barrier does it."""
        plan = plan or self._plans[graph]
        if not isinstance(event, RunStarted):
            self._past.append((plan, event))
        transition = Scheduler().decide(plan, event)
        before = self.state.copy()
        applied = self._last = self.state.apply(transition)
        assert not applied.stale or before == self.state, "stale, and yet something changed"
        check_step(self.specs, before, self.state, None if applied.stale else transition)
        self.log.append(transition)
        self._observe(transition, applied, self.state)
        self._pending += [emission.command for emission in applied.emissions if not emission.expected]
        if applied.ended_node and is_message and not again and transition.node is not None:
            self._count_part(Place.of(plan, transition.node))
        return applied

    def _count_part(self, place: Place) -> None:
        """Celery counts a message of a chord; the last one sends its body."""
        if not place.spec.is_exit:
            return
        group = place.around
        self._chords[group.key] += 1
        if self._chords[group.key] == (len(group.spec.exits) or self._sizes.get(group.spec.id, 0)):
            self._pending.append(CloseBarrier(group.key, group.graph))


def replay(log: list[Step]) -> RunState:
    """The state that the same steps lead to once more."""
    state = RunState()
    for step in log:
        if isinstance(step, Begin):
            state.begin(step.node, step.attempt, step.redelivered, step.scopes, step.graph)
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
