"""The Scheduler: what follows from an event. The meaning of a workflow is written here and nowhere else.

Rule of this file: no I/O, no clock, no randomness, no mutable state. The answer depends on the plan and the event
alone, at a cost that depends on the node's neighbours and never on the size of the graph.

    event -> Scheduler.decide(plan, event) -> Transition -> a run store applies it atomically -> commands

Deciding needs no look at the counters of a run: a transition says which joins are counted and what the arrival that
completes one brings about, and the run store, which alone sees all arrivals in one order, does the counting
(`RunState.apply`, or its twin inside Redis). So concurrent ends of a thousand members never conflict.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from graflow_celery.core.commands import (
    CloseBarrier,
    Command,
    DispatchNode,
    ExpireFeedback,
    ExpireGroup,
    ExpireRun,
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
    NodeReentered,
    NodeReturned,
    NodeSkipped,
    NodeSucceeded,
    RunAborted,
    RunCancelledByNode,
    RunExpired,
    RunStarted,
    RunTerminated,
    StepsExceeded,
)
from graflow_celery.core.place import Place, start_of
from graflow_celery.core.plan import Plan, TaskOptions
from graflow_celery.core.policy import SchedulingPolicy
from graflow_celery.core.retry import RetryPolicy
from graflow_celery.core.state import Arrival, Draw, Emission, NodeState, RunStatus, Transition
from graflow_celery.errors import RunStateError

#: How long a node waits that lost more than one process. The first time it goes on at once.
LOSS_BACKOFF = RetryPolicy(initial_interval=1.0, max_interval=30.0, jitter=True)
#: Under what a run counts an activation after which its successors were left out, and where one jumped.
LEFT, JUMPED = "left:", "goto:"
RunEnd = CancelRequested | RunAborted | StepsExceeded | RunExpired


class Scheduler:
    """Answers events with transitions. Stateless: one instance serves every run.

    Args:
        policy: which of the nodes that are ready at the same time goes first; what the plan says by default.
    """

    def __init__(self, policy: SchedulingPolicy | None = None) -> None:
        self._policy = policy

    def rank(self, plan: Plan, node: str) -> Any:
        """What nodes that are ready at the same time are sorted by, the smallest first."""
        return (self._policy or plan.scheduling).rank(plan[node])

    def decide(self, plan: Plan, event: Event) -> Transition:
        """What follows from ``event``.

        Raises:
            UnknownNodeError: the event speaks of a node that the plan does not have.
            RunStateError: the event does not fit the node (a barrier of a task, an outcome of a group).
        """
        decided = self._decide(plan, event)
        return decided if plan.first == 1 else replace(decided, first=plan.first)

    def _decide(self, plan: Plan, event: Event) -> Transition:
        match event:
            case NodeSucceeded(node):  # first, being what happens most
                return self._of_attempt(_task(plan, node), event)
            case RunStarted(timeout):
                entered = self._enter(start_of(plan))
                expiry = () if timeout is None else (Emission(ExpireRun(timeout), delay=timeout),)
                return Transition("run_submitted", emissions=(*entered, *expiry))
            case MapExpanded(group, items):
                return self._expanded(Place.of(plan, group), items)
            case BarrierReached(group):
                return self._barrier(Place.of(plan, group), event)
            case NodeSkipped(node):
                place = Place.of(plan, node)
                return self._ended(place, 0, NodeState.SKIPPED, acknowledges=(SkipNode(node, place.graph),))
            case NodeFinished(node, attempt, group, failure, goto, leaves):
                return self._finished(Place.of(plan, node), attempt, group, failure, goto, leaves)
            case CancelRequested() | RunAborted() | StepsExceeded() | RunExpired():
                return self.end(event)
            case _:
                return self._of_attempt(_task(plan, event.node), event)

    def end(self, event: RunEnd) -> Transition:
        """What ends a run at once, whatever its plan is."""
        match event:
            case CancelRequested(reason):
                return Transition("cancel_requested", ends=RunStatus.CANCELLED, reason=reason)
            case RunAborted(reason):
                return Transition("run_aborted", ends=RunStatus.FAILED, reason=reason)
            case StepsExceeded(limit):
                reason = f"max_steps={limit} was reached before the workflow's end. Allow more: execute(max_steps=...)"
                return Transition("steps_exceeded", ends=RunStatus.TERMINATED, reason=reason)
            case RunExpired(seconds):
                return Transition(
                    "run_expired", ends=RunStatus.CANCELLED, reason=f"it did not end within {seconds:g} s"
                )

    def _of_attempt(self, place: Place, event: Event) -> Transition:
        """What an attempt of a task did, or what became of it."""
        match event:
            case NodeSucceeded(_, attempt, goto, added, leaves):
                if added is not None:
                    return self._added(place, attempt, added, goto)
                return self._ended(place, attempt, NodeState.SUCCEEDED, goto=goto, leaves=leaves)
            case NodeFailed() | NodeLost() | NodeReturned():
                return self._unfinished(place, event)
            case NodeReentered(_, attempt, cycle):
                return self._reentered(place, attempt, cycle)
            case NodeIterated(_, attempt):
                return self._again(place, "node_iterated", attempt, reenters=place.spec.id)
            case FeedbackRequested(_, attempt, request, timeout):
                asked = ExpireFeedback(place.key, attempt + 1, request, place.graph)
                return self._waiting(
                    place, "feedback_requested", attempt, () if timeout is None else (Emission(asked, delay=timeout),)
                )
            case FeedbackAnswered(_, attempt, request):
                answered = self._again(place, "feedback_answered", attempt, resumes=True)
                return replace(answered, acknowledges=(ExpireFeedback(place.key, attempt, request, place.graph),))
            case FeedbackExpired(_, attempt, request):
                expired = ExpireFeedback(place.key, attempt, request, place.graph)
                return Transition(
                    "feedback_expired",
                    place.key,
                    attempt,
                    scopes=place.scopes,
                    acknowledges=(expired,),
                    pauses=True,
                )
            case RunTerminated(_, attempt, reason):
                ended = self._ended(place, attempt, NodeState.SUCCEEDED)
                return replace(ended, arrivals=(), emissions=(), draw=None, ends=RunStatus.TERMINATED, reason=reason)
            case RunCancelledByNode(_, attempt, reason):
                ended = self._ended(place, attempt, NodeState.FAILED, reason=reason)
                return replace(ended, arrivals=(), emissions=(), draw=None, ends=RunStatus.CANCELLED, reason=reason)
            case _:
                raise RunStateError(f"Not an event of a task: {event!r}.")

    # ------------------------------------------------------------------------------------ another attempt

    def _unfinished(self, place: Place, event: NodeFailed | NodeLost | NodeReturned) -> Transition:
        match event:
            case NodeFailed():
                return self._failed(place, event)
            case NodeLost():
                return self._lost(place, event)
            case NodeReturned(_, attempt, reason, holder):
                return replace(self._again(place, "node_returned", attempt), reason=reason, holder=holder)

    def _failed(self, place: Place, event: NodeFailed) -> Transition:
        options = place.spec.options
        if event.retryable and event.retries < options.retries:
            delay = options.retry.delay(event.retries, event.jitter) if options.retry is not None else 0.0
            retried = self._again(place, "node_retried", event.attempt, delay=delay)
            return replace(retried, retries=True, reason=event.reason)
        return self._ended(place, event.attempt, NodeState.FAILED, reason=event.reason)

    def _lost(self, place: Place, event: NodeLost) -> Transition:
        """Another attempt takes over, later each time, until the node has lost as many processes as it may."""
        losses = event.losses + 1
        if losses >= losses_allowed(place.spec.options, event.max_losses):
            lost = self._ended(place, event.attempt, NodeState.FAILED, reason=event.reason)
        else:
            delay = LOSS_BACKOFF.delay(losses - 2, event.jitter) if losses > 1 else 0.0
            lost = replace(self._again(place, "node_lost", event.attempt, delay=delay), reason=event.reason)
        return replace(lost, holder=event.holder, loses=True)

    def _reentered(self, place: Place, attempt: int, cycle: int) -> Transition:
        limit = place.spec.options.max_cycles
        if limit is not None and cycle >= limit:
            return self._ended(place, attempt, NodeState.FAILED, reason=cycle_reason(limit))
        return Transition("node_reentered", place.key, attempt, scopes=place.scopes)

    def _again(
        self, place: Place, event: str, attempt: int, *, delay: float = 0.0, reenters: str = "", resumes: bool = False
    ) -> Transition:
        """Another attempt of the same activation takes over."""
        command = DispatchNode(place.key, attempt + 1, place.graph)
        return Transition(
            event,
            place.key,
            attempt,
            scopes=place.scopes,
            graph=place.graph,
            becomes=NodeState.QUEUED,
            next_attempt=attempt + 1,
            emissions=(Emission(command, delay=delay, reenters=reenters),),
            resumes=resumes,
        )

    # ------------------------------------------------------------------------------------ waiting

    def _waiting(self, place: Place, event: str, attempt: int, emissions: tuple[Emission, ...]) -> Transition:
        """The code is done for now. The attempt moves on, so that whoever ends the wait does so once."""
        return Transition(
            event,
            place.key,
            attempt,
            scopes=place.scopes,
            graph=place.graph,
            becomes=NodeState.WAITING,
            next_attempt=attempt + 1,
            emissions=emissions,
        )

    def _added(self, place: Place, attempt: int, group: str, goto: tuple[str, ...]) -> Transition:
        """The node added tasks: it is done when they are. Jumps take place then."""
        waiting = self._waiting(place, "node_waiting", attempt, self._enter(Place.of(place.plan, group)))
        noted = tuple((jumped(place.key, target), 1) for target in goto)
        return replace(waiting, jumps=(group, goto) if goto else None, declares=noted)

    def _finished(
        self, place: Place, attempt: int, group: str, failure: str | None, goto: tuple[str, ...], leaves: bool
    ) -> Transition:
        state = NodeState.SUCCEEDED if failure is None else NodeState.FAILED
        finish = FinishNode(place.key, attempt, group, failure, goto, leaves, place.graph)
        return self._ended(
            place,
            attempt,
            state,
            reason=failure or "",
            goto=goto,
            leaves=leaves,
            acknowledges=(finish,),
        )

    # ------------------------------------------------------------------------------------ groups

    def _expanded(self, place: Place, items: int) -> Transition:
        """The number of members is known now. Told twice, it opens them once."""
        spec = place.spec
        if spec.map is None:
            raise RunStateError(f"Node '{spec.id}' is no mapped task: it has no items.")
        at_once = items if spec.map.max_parallel is None else min(items, spec.map.max_parallel)
        opened = OpenMembers(place.key, 0, at_once, items, place.graph)
        then: Command = opened if items else CloseBarrier(place.key, place.graph)
        return Transition(
            "map_expanded",
            place.key,
            scopes=place.scopes,
            items=items,
            declares=((place.barrier, items), (f"next:{place.key}", at_once)) if items else (),
            arrivals=(Arrival(f"items:{place.key}", 1, (Emission(then),)),),
            acknowledges=(OpenGroup(place.key, place.graph),),
        )

    def _barrier(self, place: Place, event: BarrierReached) -> Transition:
        spec, shortfall, goto = place.spec, event.shortfall, event.goto
        if not spec.is_group:
            raise RunStateError(f"Node '{spec.id}' is a task: no barrier belongs to it.")
        state = NodeState.SUCCEEDED if shortfall is None else NodeState.FAILED
        answered: list[Command] = [CloseBarrier(place.key, place.graph)]
        if spec.timeout is not None:
            answered.append(ExpireGroup(place.key, place.graph))
        reason = shortfall or ""
        if spec.owner is None:
            return self._ended(place, 0, state, reason=reason, goto=goto, acknowledges=tuple(answered))
        owner = spec.owner
        finish = FinishNode(owner.node, owner.attempt, place.key, shortfall, goto, owner.leaves, owner.graph)
        return Transition(
            f"group_{state}",
            place.key,
            becomes=state,
            consumes=place.weight,
            emissions=(Emission(finish),),
            acknowledges=tuple(answered),
            reason=reason,
        )

    # ------------------------------------------------------------------------------------ ends

    def _ended(
        self,
        place: Place,
        attempt: int,
        state: NodeState,
        *,
        reason: str = "",
        goto: tuple[str, ...] = (),
        leaves: bool = False,
        acknowledges: tuple[Command, ...] = (),
    ) -> Transition:
        """An activation reached a final state: tell the barrier around it and the nodes after it."""
        spec = place.spec
        if state is not NodeState.SUCCEEDED:
            goto, leaves = (), False
        fatal = state is NodeState.FAILED and place.is_fatal
        near = tuple(target for target in goto if place.plan[target].group == spec.group) if goto else ()
        far = tuple(target for target in goto if target not in near) if goto else ()
        if spec.group is not None and near:  # a member is a chain: what comes later in it follows from the earliest
            near = (min(near, key=place.plan.number),)
        leaves = leaves or bool(goto)
        arrivals = [self._jump(place.jump(target)) for target in near]
        mirror = place.mirror
        if spec.group is None:
            goes_on = state is NodeState.SUCCEEDED and not leaves
            arrivals += [self._arrive(place.beside(successor), goes_on) for successor in spec.successors]
            if goes_on:
                arrivals += [self._jump(place.jump(target)) for target in spec.loops]
        elif leaves and not near:
            mirror = place.last.home_key
            arrivals.append(self._arrive_at_barrier(place))
        elif not near:
            live = state is NodeState.SUCCEEDED
            arrivals += [self._arrive(place.beside(successor), live) for successor in spec.successors]
            if spec.is_exit:
                arrivals.append(self._arrive_at_barrier(place))
        return Transition(
            f"node_{state}" if not spec.is_group else f"group_{state}",
            place.key,
            attempt,
            scopes=place.scopes,
            graph=place.graph,
            becomes=state,
            mirror=mirror,
            consumes=place.weight,
            declares=_left(place, goto) if leaves else (),
            arrivals=tuple(arrivals),
            draw=self._draw(place),
            jumps=(place.around.key, far) if far and spec.group is not None else None,
            acknowledges=acknowledges,
            ends=RunStatus.FAILED if fatal else None,
            reason=f"'{spec.id}' failed: {reason}" if fatal else reason,
        )

    def _arrive(self, place: Place, live: bool) -> Arrival:
        """A join runs once, after all of its predecessors, if at least one of them succeeded and led to it."""
        skip = SkipNode(place.key, place.graph)
        return Arrival(
            key=place.key,
            needs=place.needs,
            then=self._enter(place),
            otherwise=(Emission(skip, weight=place.weight),),
            live=live,
        )

    def _jump(self, target: Place) -> Arrival:
        """A jump, or the edge that closes a cycle, enters its target at once. Two from one pass count as one."""
        return Arrival(f"jump:{target.key}", 1, self._enter(target))

    def _arrive_at_barrier(self, place: Place) -> Arrival:
        """A barrier waits for all members, whatever became of them; what that means is for the policy to say."""
        group = place.around
        close = CloseBarrier(group.key, group.graph)
        return Arrival(group.barrier, len(group.spec.exits), (Emission(close),))

    def _draw(self, place: Place) -> Draw | None:
        """The next member of a mapped task that runs a few at a time takes the place of the one that ended."""
        if place.spec.group is None:
            return None
        group = place.around
        if group.spec.map is None or group.spec.map.max_parallel is None:
            return None
        prefix, suffix = place.siblings
        return Draw(f"next:{group.key}", group.barrier, prefix, suffix, group.graph, place.plan.first)

    def _enter(self, place: Place) -> tuple[Emission, ...]:
        spec = place.spec
        reenters = spec.id if place.is_again else ""
        if not spec.is_group:
            command: Command = DispatchNode(place.key, place.plan.first, place.graph)
            return (Emission(command, weight=place.weight, reenters=reenters),)
        members = len(spec.exits)
        opened = [Emission(OpenGroup(place.key, place.graph), place.weight, reenters=reenters, members=members)]
        if spec.timeout is not None:
            opened.append(Emission(ExpireGroup(place.key, place.graph), delay=spec.timeout))
        for entry in spec.entries:
            if place.plan[entry].is_group:
                opened += self._enter(place.inside(entry))
        return tuple(opened)


def losses_allowed(options: TaskOptions, max_losses: int) -> int:
    """With how many losses a node has failed; ``max_losses`` is the setting's value."""
    return 1 if options.on_worker_loss == "fail" else options.max_losses or max_losses


def _left(place: Place, goto: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    return ((f"{LEFT}{place.key}", 1), *((jumped(place.key, target), 1) for target in goto))


def jumped(key: str, target: str) -> str:
    """Under what a run notes that an activation jumped to a node. Nothing but a retry of the run asks for it."""
    return f"{JUMPED}{json.dumps([key, target])}"


def cycle_reason(limit: int) -> str:
    """How the end of a cycle that went on for too long reads."""
    return f"it ran {limit} times, as often as max_cycles={limit} allows"


def _task(plan: Plan, node: str) -> Place:
    place = Place.of(plan, node)
    if place.spec.is_group:
        raise RunStateError(f"Node '{node}' is a group: it ends at its barrier, not with an outcome of its own.")
    return place
