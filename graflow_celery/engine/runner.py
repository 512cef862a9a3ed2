"""The engine: event -> Scheduler -> run store -> commands -> executor. The same for threads and for Celery workers."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from graflow_celery.core.activation import node_of
from graflow_celery.core.commands import (
    CloseBarrier,
    Command,
    DispatchNode,
    ExpireFeedback,
    ExpireGroup,
    ExpireRun,
    FinishNode,
    OpenGroup,
    SkipNode,
    graph_of,
)
from graflow_celery.core.events import (
    BarrierReached,
    Event,
    FeedbackExpired,
    MapExpanded,
    NodeFinished,
    NodeSkipped,
    RunExpired,
)
from graflow_celery.core.place import Place
from graflow_celery.core.plan import NodeSpec, Plan
from graflow_celery.core.policy import MemberOutcome
from graflow_celery.core.scheduler import RunEnd, Scheduler
from graflow_celery.core.state import Applied, Transition
from graflow_celery.engine.groups import hopeful, judged, member_keys, take_items, verdict
from graflow_celery.engine.untraced import UNTRACED
from graflow_celery.errors import (
    BlobMissingError,
    BlobRejectedError,
    ParallelGroupError,
    SerializationError,
    UnavailableError,
)
from graflow_celery.ports import Executor, Graphs, NodeOutcome, Outcome, RunRef, RunStore, Tracer

logger = logging.getLogger(__name__)

#: How many members of a mapped task are sent at a time.
SLICE = 1000


class Engine:
    """Carries events to the Scheduler and its answers to the store and the executor."""

    def __init__(self, store: RunStore, executor: Executor, graphs: Graphs, scheduler: Scheduler | None = None) -> None:
        self.store = store
        self.executor = executor
        self.graphs = graphs
        self.scheduler = scheduler or Scheduler()
        #: Called after each commit of an event; must not raise.
        self.committed: Callable[[RunRef, Plan, Transition, Applied], None] = _nothing
        #: Follows the attempts that run here, and is told of the ends of runs.
        self.tracer: Tracer = UNTRACED

    def deliver(
        self,
        run: RunRef,
        plan: Plan,
        event: Event,
        outcome: Outcome | None = None,
        before_following: Callable[[Applied], None] | None = None,
    ) -> Applied:
        """One event: decide, commit, and carry out what follows from it. Returns what the commit of it answered.

        What is committed counts. If its commands cannot be sent, they stay in the outbox, and the monitor sends them.

        Args:
            before_following: called after the commit and before anything follows: a checkpoint that is taken there
                knows nothing yet of what the next nodes come to. It must not raise, and so with ``committed``.

        Raises:
            SerializationError: the outcome cannot be stored; nothing was changed.
        """
        transition = self.scheduler.decide(plan, event)
        applied = self.store.commit(run, transition, outcome)
        if before_following is not None:
            before_following(applied)
        self.committed(run, plan, transition, applied)
        self.told(run, applied)
        self.follow(run, plan, applied)
        return applied

    def follow(self, run: RunRef, plan: Plan, applied: Applied) -> None:
        """Carries out what a commit queued, now or after its delay."""
        try:
            self.carry_out(run, plan, self._due(applied))
            for emission in applied.emissions:
                if emission.delay:
                    self.executor.send(run, self._plan(run, plan, emission.command), [emission.command], emission.delay)
        except UnavailableError as error:
            logger.warning("run %s: committed, but what follows could not be sent; it will be: %s", run.id, error)

    def end(self, run: RunRef, event: RunEnd) -> Applied:
        """Ends a run at once. Needs no plan."""
        return self.told(run, self.store.commit(run, self.scheduler.end(event)))

    def carry_out(self, run: RunRef, plan: Plan, commands: Sequence[Command]) -> None:
        """Carries commands out: what only leads to another event here, one after the other; the rest by the executor.

        Raises:
            UnavailableError: they could not be sent; they stay in the outbox.
        """
        pending = deque(commands)
        outgoing: dict[str, list[Command]] = {}
        while pending:
            command = pending.popleft()
            here = self._plan(run, plan, command)
            followed = self._turn(run, here, command)
            if followed is None:
                outgoing.setdefault(graph_of(command), []).append(command)
                continue
            if followed.stale:  # what it would lead to has happened, or cannot any more
                self.store.acknowledge(run, [command])
            pending.extend(self._due(followed))
            for emission in followed.emissions:
                if emission.delay:
                    self.executor.send(run, here, [emission.command], emission.delay)
        for batch in outgoing.values():
            here = self._plan(run, plan, batch[0])
            self.executor.send(run, here, self._ranked(here, batch) if len(batch) > 1 else batch)

    def _turn(self, run: RunRef, plan: Plan, command: Command) -> Applied | None:
        """Turns a command into the event that it leads to; None for what somebody else has to do."""
        match command:
            case DispatchNode():  # first, being what happens most
                return None
            case SkipNode(node):
                return self._commit(run, plan, NodeSkipped(node))
            case FinishNode(node, attempt, group, failure, goto, leaves):
                return self._finish(run, plan, NodeFinished(node, attempt, group, failure, goto, leaves))
            case OpenGroup(group) if plan[group].map is not None:
                return self._expand(run, plan, group)
            case ExpireGroup(group):
                return self._close(run, plan, group, expired=True)
            case ExpireRun(seconds):
                return self.end(run, RunExpired(seconds))
            case ExpireFeedback(node, attempt, request):
                return self._expire(run, plan, FeedbackExpired(node, attempt, request))
            case _:
                return None

    def close_barrier(self, run: RunRef, plan: Plan, group: str) -> Applied:
        """Asks a group's policy about the committed outcomes and delivers its verdict. Repeating it is harmless."""
        applied = self.judge(run, plan, group)
        self.follow(run, plan, applied)
        return applied

    def judge(self, run: RunRef, plan: Plan, group: str) -> Applied:
        """Does what :meth:`close_barrier` does, and leaves it to the caller to carry out what follows."""
        applied = self._close(run, plan, group)
        if applied.stale:  # a group around it was closed first, say: nobody is to ask again
            self.store.acknowledge(run, [CloseBarrier(group, Place.of(plan, group).graph)])
        return applied

    def close_if_hopeless(self, run: RunRef, plan: Plan, group: str) -> Applied | None:
        """Closes a group whose policy cannot be met any more, whatever the members come to that have not ended.

        None if it can be met, and nothing was done.
        """
        place = Place.of(plan, group)
        found = self._members(run, place)
        shortfall = verdict(place.spec.policy, hopeful(found))
        if shortfall is None:
            return None
        error = _error(place.spec, shortfall, judged(found, stopped=True))
        applied = self._commit(run, plan, BarrierReached(group, shortfall), Outcome(error=error))
        self.follow(run, plan, applied)
        return applied

    def _close(self, run: RunRef, plan: Plan, group: str, *, expired: bool = False) -> Applied:
        place = Place.of(plan, group)
        found = self._members(run, place)
        outcomes = judged(found, expired=place.spec.timeout if expired else None)
        shortfall = verdict(place.spec.policy, outcomes)
        if shortfall is None:
            return self._commit(run, plan, BarrierReached(group, None, self.store.jumps(run, group)))
        error = _error(place.spec, shortfall, outcomes)
        return self._commit(run, plan, BarrierReached(group, shortfall), Outcome(error=error))

    def _members(self, run: RunRef, place: Place) -> Mapping[str, NodeOutcome]:
        """The outcome of each member, by its id."""
        members = member_keys(self.store, run, place)
        return dict(zip(members, self.store.outcomes(run, list(members.values())), strict=True))

    def _expand(self, run: RunRef, plan: Plan, group: str) -> Applied:
        """Counts and keeps the items of a mapped task. Repeating it is harmless."""
        place = Place.of(plan, group)
        try:
            items = take_items(self.store, run, place)
            for start in range(0, len(items), SLICE):
                self.store.put_inputs(run, dict(list(items.items())[start : start + SLICE]))
            self.store.put_inputs(run, {place.key: len(items), place.spec.id: len(items)})
        except (TypeError, LookupError, SerializationError, BlobMissingError, BlobRejectedError) as error:
            failure = BarrierReached(group, f"its items cannot be taken: {error}")
            return self._commit(run, plan, failure, Outcome(error=_error(place.spec, failure.shortfall or "", [])))
        return self._commit(run, plan, MapExpanded(group, len(items)))

    def _finish(self, run: RunRef, plan: Plan, event: NodeFinished) -> Applied:
        if event.failure is None:
            return self._commit(run, plan, event)
        return self._commit(run, plan, event, Outcome(error=self.store.error(run, node_of(event.group))))

    def _expire(self, run: RunRef, plan: Plan, event: FeedbackExpired) -> Applied:
        """Nobody answered in time: from now on the run is ``waiting``. What is to be done then, is done here."""
        [asked] = self.store.feedback(run, [event.request])
        return self._commit(run, plan, event, Outcome(feedback=replace(asked, expired=True)))

    def _commit(self, run: RunRef, plan: Plan, event: Event, outcome: Outcome | None = None) -> Applied:
        transition = self.scheduler.decide(plan, event)
        applied = self.store.commit(run, transition, outcome)
        self.committed(run, plan, transition, applied)
        return self.told(run, applied)

    def told(self, run: RunRef, applied: Applied) -> Applied:
        """Tells the tracer if the run has ended with what was committed."""
        if applied.status.is_terminal and not applied.stale:
            self.tracer.ended(run)
        return applied

    def _plan(self, run: RunRef, plan: Plan, command: Command) -> Plan:
        graph = graph_of(command)
        return plan if graph == plan.graph else self.graphs.plan_for(run, graph)

    def _ranked(self, plan: Plan, commands: list[Command]) -> list[Command]:
        """Nodes that are ready at the same time, in the order of the scheduling policy."""
        return sorted(commands, key=lambda command: self.scheduler.rank(plan, _node(command)))

    def _due(self, applied: Applied) -> list[Command]:
        return [emission.command for emission in applied.emissions if not emission.delay]


def _nothing(run: RunRef, plan: Plan, transition: Transition, applied: Applied) -> None:
    return None


def _node(command: Command) -> str:
    return str(getattr(command, "node", "") or getattr(command, "group", ""))


def _error(spec: NodeSpec, shortfall: str, outcomes: Sequence[MemberOutcome]) -> ParallelGroupError:
    return ParallelGroupError(
        shortfall,
        spec.id,
        [(outcome.member, outcome.error) for outcome in outcomes if not outcome.succeeded],
        [outcome.member for outcome in outcomes if outcome.succeeded],
    )
