"""The Scheduler: what follows from an event. The meaning of a workflow is written here and nowhere else.

Rule of this file: no I/O, no clock, no randomness, no mutable state. The answer depends on the plan and the event
alone, at a cost that depends on the node's neighbours and never on the size of the graph.

    event -> Scheduler.decide(plan, event) -> Transition -> a run store applies it atomically -> commands

Deciding needs no look at the counters of a run: a transition says which joins are counted and what the arrival that
completes one brings about, and the run store, which alone sees all arrivals in one order, does the counting
(`RunState.apply`, or its twin inside Redis). So concurrent ends of a thousand members never conflict.
"""

from __future__ import annotations

from graflow_celery.core.commands import CloseBarrier, Command, DispatchNode, OpenGroup, SkipNode
from graflow_celery.core.events import (
    BarrierReached,
    CancelRequested,
    Event,
    NodeFailed,
    NodeLost,
    NodeSkipped,
    NodeSucceeded,
    RunAborted,
    RunStarted,
)
from graflow_celery.core.plan import NodeSpec, Plan
from graflow_celery.core.state import Arrival, Emission, NodeState, RunStatus, Transition
from graflow_celery.errors import RunStateError

FIRST_ATTEMPT = 1


class Scheduler:
    """Answers events with transitions. Stateless: one instance serves every run."""

    def decide(self, plan: Plan, event: Event) -> Transition:
        """What follows from ``event``.

        Raises:
            UnknownNodeError: the event speaks of a node that the plan does not have.
            RunStateError: the event does not fit the node (a barrier of a task, an outcome of a group).
        """
        match event:
            case RunStarted():
                return Transition("run_started", emissions=(self._enter(plan[plan.start]),))
            case NodeSucceeded(node, attempt):
                spec = self._task(plan, node)
                return self._ended(plan, spec, attempt, NodeState.SUCCEEDED, consumes=1)
            case NodeFailed(node, attempt, reason, retryable):
                return self._failed(plan, self._task(plan, node), attempt, reason, retryable)
            case NodeLost(node, attempt, losses, max_losses):
                return self._lost(plan, self._task(plan, node), attempt, losses, max_losses)
            case NodeSkipped(node):
                return self._ended(plan, plan[node], 0, NodeState.SKIPPED, consumes=1, acknowledges=SkipNode(node))
            case BarrierReached(group, shortfall):
                return self._barrier(plan, plan[group], shortfall)
            case CancelRequested() | RunAborted():
                return self.end(event)

    def end(self, event: CancelRequested | RunAborted) -> Transition:
        """What ends a run at once, whatever its plan is."""
        if isinstance(event, CancelRequested):
            return Transition("cancel_requested", ends=RunStatus.CANCELLED, reason=event.reason)
        return Transition("run_aborted", ends=RunStatus.FAILED, reason=event.reason)

    def _failed(self, plan: Plan, spec: NodeSpec, attempt: int, reason: str, retryable: bool) -> Transition:
        if retryable and attempt <= spec.options.max_retries:
            return Transition(
                "node_retried",
                node=spec.id,
                attempt=attempt,
                becomes=NodeState.QUEUED,
                next_attempt=attempt + 1,
                consumes=1,
                emissions=(Emission(DispatchNode(spec.id, attempt + 1), weight=1),),
                reason=reason,
            )
        return self._ended(plan, spec, attempt, NodeState.FAILED, consumes=1, reason=reason)

    def _lost(self, plan: Plan, spec: NodeSpec, attempt: int, losses: int, max_losses: int) -> Transition:
        """The attempt goes on where its message was delivered again, until the node may lose no more workers."""
        allowed = 0 if spec.options.on_worker_loss == "fail" else spec.options.max_losses or max_losses
        reason = lost_reason(losses)
        if losses > allowed:
            return self._ended(plan, spec, attempt, NodeState.FAILED, consumes=1, reason=reason)
        return Transition("node_lost", node=spec.id, attempt=attempt, reason=reason)

    def _barrier(self, plan: Plan, spec: NodeSpec, shortfall: str | None) -> Transition:
        if not spec.is_group:
            raise RunStateError(f"Node '{spec.id}' is a task: no barrier belongs to it.")
        state = NodeState.SUCCEEDED if shortfall is None else NodeState.FAILED
        return self._ended(plan, spec, 0, state, consumes=1, reason=shortfall or "", acknowledges=CloseBarrier(spec.id))

    def _ended(
        self,
        plan: Plan,
        spec: NodeSpec,
        attempt: int,
        state: NodeState,
        *,
        consumes: int,
        reason: str = "",
        acknowledges: Command | None = None,
    ) -> Transition:
        """A node reached a final state: tell the barrier around it and the nodes after it."""
        arrivals = [self._arrive_at(plan[successor], state) for successor in spec.successors]
        if spec.is_exit and spec.group is not None:
            arrivals.append(self._arrive_at_barrier(plan[spec.group], state))
        fatal = state is NodeState.FAILED and spec.group is None
        return Transition(
            f"node_{state.value}" if not spec.is_group else f"group_{state.value}",
            node=spec.id,
            attempt=attempt,
            becomes=state,
            consumes=consumes,
            arrivals=tuple(arrivals),
            acknowledges=acknowledges,
            ends=RunStatus.FAILED if fatal else None,
            reason=f"'{spec.id}' failed: {reason}" if fatal else reason,
        )

    def _arrive_at(self, spec: NodeSpec, state: NodeState) -> Arrival:
        """A join runs once, after all of its predecessors, if at least one of them succeeded."""
        return Arrival(
            key=spec.id,
            needs=spec.needs,
            live=state is NodeState.SUCCEEDED,
            quorum=1,
            then=self._enter(spec),
            otherwise=Emission(SkipNode(spec.id), weight=1),
        )

    def _arrive_at_barrier(self, group: NodeSpec, state: NodeState) -> Arrival:
        """A chord counts what ran. Where a member was skipped it will not fire, so the barrier is sent directly."""
        return Arrival(
            key=f"barrier:{group.id}",
            needs=len(group.exits),
            live=state is not NodeState.SKIPPED,
            quorum=len(group.exits),
            then=Emission(CloseBarrier(group.id), weight=1, expected=True),
            otherwise=Emission(CloseBarrier(group.id), weight=1),
        )

    def _enter(self, spec: NodeSpec) -> Emission:
        command = OpenGroup(spec.id) if spec.is_group else DispatchNode(spec.id, FIRST_ATTEMPT)
        return Emission(command, weight=spec.weight)

    def _task(self, plan: Plan, node: str) -> NodeSpec:
        spec = plan[node]
        if spec.is_group:
            raise RunStateError(f"Node '{node}' is a group: it ends at its barrier, not with an outcome of its own.")
        return spec


def lost_reason(losses: int) -> str:
    """How a loss reads in events and errors."""
    times = "its worker process died" if losses == 1 else f"its worker process died {losses} times"
    return f"{times} while it ran (out of memory?)"
