"""The engine: event -> Scheduler -> run store -> commands -> executor. The same for threads and for Celery workers."""

from __future__ import annotations

import logging
from collections import deque

from graflow_celery.core.commands import CloseBarrier, Command, SkipNode
from graflow_celery.core.events import BarrierReached, CancelRequested, Event, NodeSkipped, RunAborted
from graflow_celery.core.plan import Plan
from graflow_celery.core.policy import MemberOutcome
from graflow_celery.core.scheduler import Scheduler
from graflow_celery.core.state import Applied, NodeState
from graflow_celery.errors import ParallelGroupError, UnavailableError
from graflow_celery.ports import Executor, Outcome, RunRef, RunStore

logger = logging.getLogger(__name__)


class Engine:
    """Carries events to the Scheduler and its answers to the store and the executor."""

    def __init__(self, store: RunStore, executor: Executor, scheduler: Scheduler | None = None) -> None:
        self.store = store
        self.executor = executor
        self.scheduler = scheduler or Scheduler()

    def deliver(self, run: RunRef, plan: Plan, event: Event, outcome: Outcome | None = None) -> Applied:
        """One event: decide, commit, and carry out what follows from it. Returns what the commit of it answered.

        What is committed counts. If its commands cannot be sent, they stay in the outbox, and the monitor sends them.

        Raises:
            SerializationError: the outcome cannot be stored; nothing was changed.
        """
        applied = self.store.commit(run, self.scheduler.decide(plan, event), outcome)
        try:
            self.carry_out(run, plan, self._due(applied))
        except UnavailableError as error:
            logger.warning("run %s: committed, but what follows could not be sent; it will be: %s", run.id, error)
        return applied

    def end(self, run: RunRef, event: CancelRequested | RunAborted) -> Applied:
        """Ends a run at once. Needs no plan."""
        return self.store.commit(run, self.scheduler.end(event))

    def carry_out(self, run: RunRef, plan: Plan, commands: list[Command]) -> None:
        """Carries commands out: skips here, one after the other however many follow; the rest by the executor.

        Raises:
            UnavailableError: they could not be sent; they stay in the outbox.
        """
        pending = deque(commands)
        outgoing: list[Command] = []
        while pending:
            command = pending.popleft()
            if isinstance(command, SkipNode):
                skipped = self.scheduler.decide(plan, NodeSkipped(command.node))
                pending.extend(self._due(self.store.commit(run, skipped)))
            else:
                outgoing.append(command)
        if outgoing:
            self.executor.send(run, plan, outgoing)

    def close_barrier(self, run: RunRef, plan: Plan, group: str) -> Applied:
        """Asks a group's policy about the committed outcomes and delivers its verdict. Repeating it is harmless."""
        spec = plan[group]
        outcomes = [
            MemberOutcome(node, found.state is NodeState.SUCCEEDED, found.error or _never_ran(found.state))
            for node, found in zip(spec.exits, self.store.outcomes(run, spec.exits), strict=True)
        ]
        shortfall = spec.policy.judge(outcomes)
        if shortfall is None:
            return self.deliver(run, plan, BarrierReached(group, None))
        error = ParallelGroupError(
            shortfall,
            group,
            [(outcome.member, outcome.error) for outcome in outcomes if not outcome.succeeded],
            [outcome.member for outcome in outcomes if outcome.succeeded],
        )
        return self.deliver(run, plan, BarrierReached(group, shortfall), Outcome(error=error))

    def _due(self, applied: Applied) -> list[Command]:
        return [
            emission.command
            for emission in applied.emissions
            if not (emission.expected and self.executor.fires_barriers and isinstance(emission.command, CloseBarrier))
        ]


def _never_ran(state: NodeState | None) -> str | None:
    return "not reached: a task before it failed" if state is NodeState.SKIPPED else None
