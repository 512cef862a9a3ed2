"""A run's state and the one function that changes it.

The Scheduler turns an event into a :class:`Transition` from the plan alone. :meth:`RunState.apply` is the small
machine that carries a transition out: check the fence, set the node's state, count arrivals at joins and barriers,
queue the commands of those that are complete, end the run when nothing is left to do. It knows no rule of workflows.
`redis_backend/lua/commit.lua` is the same machine inside Redis; a property test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from graflow_celery.core.commands import Command


class RunStatus(StrEnum):
    """Where a run stands. The last three are terminal."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self is not RunStatus.RUNNING


class NodeState(StrEnum):
    """Where a node stands. A node without a record is waiting, or queued for its first attempt."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"

    @property
    def is_final(self) -> bool:
        return self in FINAL_STATES


FINAL_STATES = frozenset({NodeState.SUCCEEDED, NodeState.FAILED, NodeState.SKIPPED})

#: Which state may follow which. A node without a record may take any of them.
ALLOWED: Mapping[NodeState, frozenset[NodeState]] = {
    NodeState.QUEUED: frozenset({NodeState.RUNNING, *FINAL_STATES, NodeState.QUEUED}),
    NodeState.RUNNING: frozenset({NodeState.RUNNING, *FINAL_STATES, NodeState.QUEUED}),
    NodeState.SUCCEEDED: frozenset(),
    NodeState.FAILED: frozenset(),
    NodeState.SKIPPED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What is known of a node: its state, its current attempt, counted from 1, and how often that lost its process."""

    state: NodeState
    attempt: int
    losses: int = 0


@dataclass(frozen=True, slots=True)
class Emission:
    """A command to be queued.

    ``weight`` is how many ends it will bring about. ``expected`` says that a chord's body will carry the command out:
    it is queued all the same, but sent only if that does not happen in time.
    """

    command: Command
    weight: int
    expected: bool = False


@dataclass(frozen=True, slots=True)
class Arrival:
    """One arrival at a join or barrier that waits for ``needs`` of them.

    The one that completes it queues ``then`` if at least ``quorum`` of them were live, else ``otherwise``.
    """

    key: str
    needs: int
    live: bool
    quorum: int
    then: Emission
    otherwise: Emission


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of a run's state, decided by the Scheduler, carried out in one atomic step by a run store.

    Attributes:
        node, attempt: the fence: nothing changes unless this is the node's current attempt and it has not ended.
            An ``attempt`` of 0 stands for a node that has none (a group, a skipped node).
        becomes: the node's new state; with ``next_attempt`` the attempt that is current from now on.
        consumes: the weight that this event takes off what the run waits for.
        arrivals, emissions: what is counted, and which commands are queued in any case.
        acknowledges: a queued command that this event answers; it leaves the outbox.
        ends: the terminal status that the run takes, with ``reason``.
    """

    event: str
    node: str | None = None
    attempt: int = 0
    becomes: NodeState | None = None
    next_attempt: int = 0
    consumes: int = 0
    arrivals: tuple[Arrival, ...] = ()
    emissions: tuple[Emission, ...] = ()
    acknowledges: Command | None = None
    ends: RunStatus | None = None
    reason: str = ""

    @property
    def is_final(self) -> bool:
        """The node has ended with this: a chord may count it."""
        return self.becomes is not None and self.becomes.is_final


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of a transition.

    ``stale``: the fence refused it and nothing changed. ``ended_node``: its node has ended with it, for good.
    """

    emissions: tuple[Emission, ...] = ()
    status: RunStatus = RunStatus.RUNNING
    ended_node: bool = False
    stale: bool = False


STALE = Applied(stale=True)


@dataclass
class RunState:
    """The state of one run, in memory. Only :meth:`apply` and :meth:`begin` change it."""

    status: RunStatus = RunStatus.RUNNING
    reason: str = ""
    outstanding: int = 0
    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    arrivals: dict[str, tuple[int, int]] = field(default_factory=dict)
    outbox: dict[Command, Emission] = field(default_factory=dict)
    last_node: str | None = None
    failed_node: str | None = None

    def begin(self, node: str, attempt: int, redelivered: bool = False) -> int | None:
        """Marks an attempt as running and returns how often it was lost before.

        None if it is not the current one, has ended, or the run has; also if it runs already, unless its message was
        redelivered, which the broker does when the process that held it has died.
        """
        if self.status.is_terminal or not self._is_current(node, attempt):
            return None
        record = self.nodes.get(node)
        runs_already = record is not None and record.state is NodeState.RUNNING
        if runs_already and not redelivered:
            return None
        losses = record.losses + 1 if record is not None and runs_already else 0
        self.nodes[node] = NodeRecord(NodeState.RUNNING, attempt, losses)
        return losses

    def apply(self, transition: Transition) -> Applied:
        if self.status.is_terminal:
            return STALE
        node = transition.node
        if node is not None:
            if not self._is_current(node, transition.attempt):
                return STALE
            if transition.becomes is not None:
                self.nodes[node] = NodeRecord(transition.becomes, transition.next_attempt or transition.attempt)
                if transition.becomes is NodeState.SUCCEEDED:
                    self.last_node = node
        if transition.acknowledges is not None:
            self.outbox.pop(transition.acknowledges, None)
        emissions = [*transition.emissions, *self._count(transition.arrivals)]
        for emission in emissions:
            self.outbox[emission.command] = emission
        self.outstanding += sum(emission.weight for emission in emissions) - transition.consumes
        if transition.ends is not None:
            self.failed_node = node
            self._end(transition.ends, transition.reason)
            return Applied((), self.status, transition.is_final)
        if self.outstanding == 0:
            self._end(RunStatus.SUCCEEDED, "")
        return Applied(tuple(emissions), self.status, transition.is_final)

    def _is_current(self, node: str, attempt: int) -> bool:
        record = self.nodes.get(node)
        if record is None:
            return attempt <= 1
        return not record.state.is_final and record.attempt == attempt

    def _count(self, arrivals: tuple[Arrival, ...]) -> list[Emission]:
        complete: list[Emission] = []
        for arrival in arrivals:
            arrived, live = self.arrivals.get(arrival.key, (0, 0))
            arrived, live = arrived + 1, live + arrival.live
            self.arrivals[arrival.key] = (arrived, live)
            if arrived == arrival.needs:
                complete.append(arrival.then if live >= arrival.quorum else arrival.otherwise)
        return complete

    def _end(self, status: RunStatus, reason: str) -> None:
        self.status = status
        self.reason = reason
        self.outbox.clear()

    def check(self) -> None:
        """Raises AssertionError where an invariant of a run's state does not hold. For tests, after every step."""
        assert self.outstanding >= 0, f"outstanding is {self.outstanding}"
        assert all(0 <= live <= arrived for arrived, live in self.arrivals.values()), self.arrivals
        assert not (self.status.is_terminal and self.outbox), f"ended with commands left: {self.outbox}"
        assert self.status.is_terminal == (self.outstanding == 0) or self.status is not RunStatus.SUCCEEDED
        assert self.status.is_terminal or self.outstanding > 0, "running, with nothing to wait for"
