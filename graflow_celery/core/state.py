"""A run's state and the one function that changes it.

The Scheduler turns an event into a :class:`Transition` from the plan alone. :meth:`RunState.apply` is the small
machine that carries a transition out: check the fence, set the node's state, count arrivals at joins and barriers,
queue the commands of those that are complete, end the run when nothing is left to do. It knows no rule of workflows.
`redis_backend/lua/advance.lua` is the same machine inside Redis; a property test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from graflow_celery.core.commands import Command, DispatchNode, OpenGroup
from graflow_celery.core.quick import quick


class RunStatus(StrEnum):
    """Where a run stands. ``waiting``: for a person, longer than was allowed for. The last four are terminal."""

    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TERMINATED = "terminated"

    @property
    def is_terminal(self) -> bool:
        return self is not RunStatus.RUNNING and self is not RunStatus.WAITING


class NodeState(StrEnum):
    """Where a node stands.

    ``running`` is said of open groups too; ``waiting`` of a node whose code is done for now: it waits for the tasks
    that it added, or for a person. A node without a record was not reached, or is queued as the first of its group.
    """

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"

    @property
    def is_final(self) -> bool:
        return self in FINAL_STATES


FINAL_STATES = frozenset({NodeState.SUCCEEDED, NodeState.FAILED, NodeState.SKIPPED})

#: Which state may follow which. A node without a record becomes any of them but ``waiting`` and ``succeeded``.
ALLOWED: Mapping[NodeState, frozenset[NodeState]] = {
    NodeState.QUEUED: frozenset({NodeState.RUNNING, NodeState.QUEUED, NodeState.FAILED}),
    NodeState.RUNNING: frozenset({NodeState.QUEUED, NodeState.WAITING, NodeState.SUCCEEDED, NodeState.FAILED}),
    NodeState.WAITING: frozenset({NodeState.QUEUED, NodeState.SUCCEEDED, NodeState.FAILED}),
    NodeState.SUCCEEDED: frozenset(),
    NodeState.FAILED: frozenset(),
    NodeState.SKIPPED: frozenset(),
}


@quick
@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What is known of an activation.

    Attributes:
        attempt: the current one, counted from 1; 0 for groups and skipped nodes.
        losses: how often its attempts lost the process that ran them.
        retries: how many failures were followed by another attempt.
        cycle: how often the node was entered again in this run before and with this activation.
        graph: the graph that it belongs to, if it was added while the run went on.
        worker: who runs it; empty unless it is ``running``.
    """

    state: NodeState
    attempt: int
    losses: int = 0
    retries: int = 0
    cycle: int = 0
    graph: str = ""
    worker: str = ""


#: Of an activation that has no record.
NEVER = NodeRecord(NodeState.QUEUED, 0)


@quick
@dataclass(frozen=True, slots=True)
class Emission:
    """A command to be queued.

    Attributes:
        weight: what the run waits for because of it: 1 if it brings about the end of a node outside of every group.
        delay: seconds after which it is due.
        reenters: the id of a node that runs again with it; the run counts how often.
        members: of a group that it opens: how many its barrier waits for, as far as that is known.
    """

    command: Command
    weight: int = 0
    delay: float = 0.0
    reenters: str = ""
    members: int = 0


@quick
@dataclass(frozen=True, slots=True)
class Arrival:
    """One arrival at a join or barrier that waits for ``needs`` of them; 0 stands for what was declared.

    The one that completes it queues ``then`` if at least one of them was live, else ``otherwise``. Only at a join are
    there others: there a predecessor arrives that ended without leading to it.
    """

    key: str
    needs: int
    then: tuple[Emission, ...]
    otherwise: tuple[Emission, ...] = ()
    live: bool = True


@dataclass(frozen=True, slots=True)
class Draw:
    """Starts the next member of a mapped task whose members start a few at a time, if there is one left.

    ``cursor`` counts those that were started, ``limit`` is where their total was declared; the member's key is made
    of ``prefix``, its number and ``suffix``. Those that ended already, before a retry of the run, are passed over.
    """

    cursor: str
    limit: str
    prefix: str
    suffix: str
    graph: str = ""
    attempt: int = 1


@quick
@dataclass(frozen=True, slots=True)
class Transition:
    """A change of a run's state, decided by the Scheduler, carried out in one atomic step by a run store.

    Attributes:
        node, attempt: the fence: nothing changes unless this is the activation's current attempt and it has not ended.
            An ``attempt`` of 0 stands for one that has none (a group, a skipped node).
        scopes: the groups around it: nothing changes if one of them has ended.
        graph: the added tasks' graph that the activation belongs to, if it does; noted where it has no record yet.
        holder: if it is given, nothing changes unless this worker runs the attempt; empty: unless nobody began it.
        becomes: the new state; with ``next_attempt`` the attempt that is current from now on.
        items: of a mapped task that was expanded: how many members it has.
        retries: the failure is followed by another attempt.
        loses: the attempt lost its process.
        mirror: the activation under which the barrier around it looks for its outcome, if that is another one.
        consumes: what the run no longer waits for.
        declares, arrivals, emissions, draw: what is counted, and which commands are queued. What was declared stays.
        jumps: a group at whose barrier jumps out of it take place, and where they lead.
        acknowledges: queued commands that this event answers; they leave the outbox.
        pauses, resumes: the node waits for a person for longer than was allowed for, or for no person any more. The run
            is ``waiting`` as long as one of its nodes is.
        first: that of the plan by which it was decided: what dates from before a retry of the run changes no node.
        ends: the terminal status that the run takes, with ``reason``.
    """

    event: str
    node: str | None = None
    attempt: int = 0
    scopes: tuple[str, ...] = ()
    graph: str = ""
    holder: str | None = None
    becomes: NodeState | None = None
    next_attempt: int = 0
    items: int | None = None
    retries: bool = False
    loses: bool = False
    mirror: str | None = None
    consumes: int = 0
    declares: tuple[tuple[str, int], ...] = ()
    arrivals: tuple[Arrival, ...] = ()
    emissions: tuple[Emission, ...] = ()
    draw: Draw | None = None
    jumps: tuple[str, tuple[str, ...]] | None = None
    acknowledges: tuple[Command, ...] = ()
    pauses: bool = False
    resumes: bool = False
    first: int = 1
    ends: RunStatus | None = None
    reason: str = ""

    @property
    def is_final(self) -> bool:
        """The activation has ended with this."""
        return self.becomes is not None and self.becomes.is_final


@quick
@dataclass(frozen=True, slots=True)
class Applied:
    """What came of a transition.

    ``stale``: the fence refused it and nothing changed. ``ended_node``: its activation has ended with it.
    ``ended``: how many nodes have ended in the run by now.
    """

    emissions: tuple[Emission, ...] = ()
    status: RunStatus = RunStatus.RUNNING
    ended_node: bool = False
    stale: bool = False
    ended: int = 0


STALE = Applied(stale=True)


@quick
@dataclass(frozen=True, slots=True)
class Leave:
    """Leave to run an attempt, and what its record says of it.

    ``max_steps`` is the run's limit if it was reached; the attempt must not run then. ``left``: how many more attempts
    the limit allows; None if there is none.
    """

    retries: int = 0
    cycle: int = 0
    max_steps: int | None = None
    left: int | None = None


@dataclass
class RunState:
    """The state of one run, in memory. Only :meth:`apply` and :meth:`begin` change it."""

    status: RunStatus = RunStatus.RUNNING
    reason: str = ""
    outstanding: int = 0
    max_steps: int | None = None
    steps: int = 0
    ended: int = 0
    nodes: dict[str, NodeRecord] = field(default_factory=dict)
    arrivals: dict[str, tuple[int, int]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    jumps: dict[str, tuple[str, ...]] = field(default_factory=dict)
    outbox: dict[Command, Emission] = field(default_factory=dict)
    last_node: str | None = None
    failed_node: str | None = None
    first: int = 1

    def begin(
        self,
        node: str,
        attempt: int,
        worker: str = "",
        scopes: tuple[str, ...] = (),
        graph: str = "",
        *,
        reached: bool = False,
        renews: bool = False,
        returns: bool = False,
        answers: Command | None = None,
    ) -> Leave | None:
        """Marks an attempt as running on ``worker``. ``graph``: the one that the node belongs to, if it was added.
        ``reached``, ``renews``, ``returns``, ``answers``: see :class:`graflow_celery.ports.Asked`.

        None if it is not the current one, runs already, has ended, or a group around it or the run has. That a broker
        delivers a message again says nothing of the process that had it first: see docs/decisions/0006-liveness.md.
        """
        holder = worker if renews or returns else None
        if self.status.is_terminal or not self._is_current(node, attempt, scopes, holder):
            return None
        if returns:
            self.nodes[node] = replace(self.nodes[node], state=NodeState.QUEUED, worker="")
            self.steps -= 1
            return Leave()
        if renews:
            return Leave()
        if reached and node not in self.nodes:
            return None
        record = self.nodes.get(node) or NodeRecord(NodeState.QUEUED, attempt, graph=graph)
        if record.state is not NodeState.QUEUED:
            return None
        if self.max_steps is not None and self.steps >= self.max_steps:
            return Leave(max_steps=self.max_steps)
        if answers is not None:
            self.outbox.pop(answers, None)
        running = NodeState.RUNNING
        self.nodes[node] = NodeRecord(
            running, record.attempt, record.losses, record.retries, record.cycle, record.graph, worker
        )
        self.steps += 1
        return Leave(record.retries, record.cycle, left=None if self.max_steps is None else self.max_steps - self.steps)

    def apply(self, transition: Transition) -> Applied:
        if self.status.is_terminal:
            return STALE
        node = transition.node
        if node is not None:
            dated = transition.first != self.first  # from before a retry of the run
            if dated or not self._is_current(node, transition.attempt, transition.scopes, transition.holder):
                return STALE
            self._enter_state(node, transition)
        for command in transition.acknowledges:
            self.outbox.pop(command, None)
        if transition.jumps is not None:
            group, targets = transition.jumps
            self.jumps[group] = self.jumps.get(group, ()) + targets
        for key, count in transition.declares:
            self.counts.setdefault(key, count)
        emissions = [*transition.emissions, *self._count(transition.arrivals), *self._drawn(transition.draw)]
        for emission in emissions:
            self._queue(emission)
        self.outstanding += sum(emission.weight for emission in emissions) - transition.consumes
        ended_node = transition.is_final
        if transition.ends is not None:
            self.failed_node = node
            self._end(transition.ends, transition.reason)
            return Applied((), self.status, ended_node, ended=self.ended)
        if node is not None and (transition.pauses or transition.resumes):
            self._count_waiting(node, transition.pauses)
        if self.outstanding == 0:
            self._end(RunStatus.SUCCEEDED, "")
            return Applied((), self.status, ended_node, ended=self.ended)
        return Applied(tuple(emissions), self.status, ended_node, ended=self.ended)

    def _is_current(self, node: str, attempt: int, scopes: tuple[str, ...], holder: str | None) -> bool:
        if scopes and any(self._has_ended(scope) for scope in scopes):
            return False
        record = self.nodes.get(node)
        if record is None:
            return attempt in (0, self.first) and not holder
        if record.state.is_final or record.attempt != attempt:
            return False
        return holder is None or (record.worker == holder and record.state is not NodeState.WAITING)

    def _enter_state(self, node: str, transition: Transition) -> None:
        state = transition.becomes
        if state is None:
            return
        record = self.nodes.get(node) or NodeRecord(state, transition.attempt, graph=transition.graph)
        attempt = transition.next_attempt or transition.attempt
        losses, retries = record.losses + transition.loses, record.retries + transition.retries
        record = NodeRecord(state, attempt, losses, retries, record.cycle, record.graph)
        self.nodes[node] = record
        if transition.mirror is not None:
            self.nodes[transition.mirror] = record
        self.ended += state.is_final
        if state is NodeState.SUCCEEDED:
            self.last_node = node

    def _count(self, arrivals: tuple[Arrival, ...]) -> list[Emission]:
        complete: list[Emission] = []
        for arrival in arrivals:
            arrived, live = self.arrivals.get(arrival.key, (0, 0))
            arrived, live = arrived + 1, live + arrival.live
            self.arrivals[arrival.key] = (arrived, live)
            if arrived == (arrival.needs or self.counts.get(arrival.key, 0)):
                complete += arrival.then if live else arrival.otherwise
        return complete

    def _drawn(self, draw: Draw | None) -> list[Emission]:
        if draw is None:
            return []
        number, limit = self.counts.get(draw.cursor, 0), self.counts.get(draw.limit, 0)
        while number < limit and self._has_ended(f"{draw.prefix}{number}{draw.suffix}"):
            number += 1
        if number >= limit:
            return []
        self.counts[draw.cursor] = number + 1
        return [Emission(DispatchNode(f"{draw.prefix}{number}{draw.suffix}", draw.attempt, draw.graph))]

    def _has_ended(self, key: str) -> bool:
        return key in self.nodes and self.nodes[key].state.is_final

    def _queue(self, emission: Emission) -> None:
        command = emission.command
        self.outbox[command] = emission
        if isinstance(command, OpenGroup):
            cycle = self._cycle(emission)
            self.nodes[command.group] = NodeRecord(NodeState.RUNNING, 0, cycle=cycle, graph=command.graph)
        elif isinstance(command, DispatchNode):
            record = self.nodes.get(command.node, NEVER)
            cycle = self._cycle(emission) or record.cycle
            queued = NodeState.QUEUED
            self.nodes[command.node] = NodeRecord(
                queued, command.attempt, record.losses, record.retries, cycle, command.graph
            )

    def _cycle(self, emission: Emission) -> int:
        """How often the node ran before. One that is reached for the first time in a later pass did not."""
        if not emission.reenters:
            return 0
        key, first = f"cycle:{emission.reenters}", self.nodes.get(emission.reenters)
        ran = first is not None and first.state is not NodeState.SKIPPED
        self.counts[key] = self.counts[key] + 1 if key in self.counts else int(ran)
        return self.counts[key]

    def _count_waiting(self, node: str, pauses: bool) -> None:
        """Notes that a node waits for a person who is late, or does so no longer."""
        before = self.counts.get(f"late:{node}", 0)
        self.counts[f"late:{node}"] = int(pauses)
        self.counts["late"] = self.counts.get("late", 0) + int(pauses) - before
        self.status = RunStatus.WAITING if self.counts["late"] else RunStatus.RUNNING

    def _end(self, status: RunStatus, reason: str) -> None:
        self.status = status
        self.reason = reason
        self.outbox.clear()

    def copy(self) -> RunState:
        return replace(
            self,
            nodes=dict(self.nodes),
            arrivals=dict(self.arrivals),
            counts=dict(self.counts),
            jumps=dict(self.jumps),
            outbox=dict(self.outbox),
        )

    def check(self) -> None:
        """Raises AssertionError where an invariant of a run's state does not hold. For tests, after every step."""
        assert self.outstanding >= 0, f"outstanding is {self.outstanding}"
        assert all(0 <= live <= arrived for arrived, live in self.arrivals.values()), self.arrivals
        assert not (self.status.is_terminal and self.outbox), f"ended with commands left: {self.outbox}"
        assert self.status is not RunStatus.SUCCEEDED or self.outstanding == 0, "succeeded with something left to do"
        assert self.status.is_terminal or self.outstanding > 0, "running, with nothing to wait for"
