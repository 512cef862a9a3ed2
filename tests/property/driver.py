"""Drives a run's state machine through random orders of events, with duplicates and late comers mixed in.

Barriers are fired as on the workers: by a chord, which counts the members that ran, or directly where one was skipped.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from graflow_celery.core.commands import CloseBarrier, Command, DispatchNode, OpenGroup, SkipNode
from graflow_celery.core.events import BarrierReached, Event, NodeFailed, NodeSkipped, NodeSucceeded, RunStarted
from graflow_celery.core.plan import Plan
from graflow_celery.core.policy import MemberOutcome
from graflow_celery.core.scheduler import Scheduler
from graflow_celery.core.state import Applied, NodeState, RunState, Transition

Observe = Callable[[Transition, Applied, RunState], None]


class Driver:
    """Carries commands out in random order until none is left. ``observe`` sees every step."""

    def __init__(self, plan: Plan, succeeds: dict[str, bool], seed: int, observe: Observe) -> None:
        self.plan = plan
        self.state = RunState()
        self.ran: list[str] = []
        self._succeeds = succeeds
        self._random = random.Random(seed)
        self._observe = observe
        self._pending: list[Command] = []
        self._past: list[Event] = []
        self._chords: Counter[str] = Counter()
        self._before: dict[str, list[str]] = {node: [] for node in plan.nodes}
        for spec in plan.nodes.values():
            for successor in spec.successors:
                self._before[successor].append(spec.id)

    def run(self) -> RunState:
        self._deliver(RunStarted())
        while self._pending and not self.state.status.is_terminal:
            index = self._random.randrange(len(self._pending))
            self._carry_out(self._pending.pop(index))
            if self._past and self._random.random() < 0.3:
                before = (dict(self.state.nodes), self.state.outstanding)
                self._deliver(self._random.choice(self._past))
                assert before == (dict(self.state.nodes), self.state.outstanding), "a duplicate changed something"
        return self.state

    def _carry_out(self, command: Command) -> None:
        match command:
            case DispatchNode(node, attempt):
                if self.state.begin(node, attempt) is not None:
                    self.ran.append(node)
                    early = [before for before in self._before[node] if not self._has_ended(before)]
                    assert not early, f"{node} ran before {early} had ended"
                self._deliver(self._outcome(node, attempt))
            case OpenGroup(group):
                for entry in self.plan[group].entries:
                    inner = self.plan[entry].is_group
                    self._pending.append(OpenGroup(entry) if inner else DispatchNode(entry, 1))
            case CloseBarrier(group):
                spec = self.plan[group]
                records = [self.state.nodes[node] for node in spec.exits]
                outcomes = [
                    MemberOutcome(node, record.state is NodeState.SUCCEEDED)
                    for node, record in zip(spec.exits, records, strict=True)
                ]
                self._deliver(BarrierReached(group, spec.policy.judge(outcomes)))
            case SkipNode(node):
                self._deliver(NodeSkipped(node))

    def _outcome(self, node: str, attempt: int) -> Event:
        return NodeSucceeded(node, attempt) if self._succeeds[node] else NodeFailed(node, attempt, "boom")

    def _deliver(self, event: Event) -> None:
        if not isinstance(event, RunStarted):
            self._past.append(event)
        transition = Scheduler().decide(self.plan, event)
        applied = self.state.apply(transition)
        self.state.check()
        self._observe(transition, applied, self.state)
        self._pending += [emission.command for emission in applied.emissions if not emission.expected]
        if applied.ended_node and transition.node is not None and transition.becomes is not NodeState.SKIPPED:
            self._count_part(transition.node)

    def _has_ended(self, node: str) -> bool:
        record = self.state.nodes.get(node)
        return record is not None and record.state.is_final

    def _count_part(self, node: str) -> None:
        spec = self.plan[node]
        if spec.group is None or not spec.is_exit:
            return
        self._chords[spec.group] += 1
        if self._chords[spec.group] == len(self.plan[spec.group].exits):
            self._pending.append(CloseBarrier(spec.group))
