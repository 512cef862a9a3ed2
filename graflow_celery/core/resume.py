"""From what a run had come to, to what has to be done so that it goes on. Pure.

A checkpoint holds records and counters; the messages and threads that carried commands out are gone. So the commands
follow from the records: what was queued or running is sent again with the same attempt, what has ended is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

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
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import Emission, NodeRecord, NodeState, RunState, RunStatus

PlanOf = Callable[[str], Plan]


@dataclass(frozen=True, slots=True)
class Asked:
    """The request by which an activation asked a person, the attempt that waits, and how many seconds it may wait."""

    node: str
    attempt: int
    request: str
    seconds: float


def pending(state: RunState, plan_of: PlanOf, asked: Iterable[Asked] = ()) -> tuple[RunState, tuple[Emission, ...]]:
    """The state from which a run goes on, and what has to be carried out for it.

    Attempts that were running are queued again, and don't count as steps. Timers begin anew, with their whole time; a
    retry that was waiting is due at once. Nothing is to be done for a run that has ended.

    A group of which nobody has arrived at the barrier is opened again, so that its members may share messages. One
    that is half done runs its missing members only.

    Args:
        plan_of: the plan of the workflow as written (``""``) or with the tasks of an added graph.
        asked: what is waited for that a person should answer.

    Raises:
        UnknownNodeError: the state speaks of a node that its plan does not have.
    """
    if state.status.is_terminal:
        return state.copy(), ()
    return _Resumption(state, plan_of).run(asked)


def renamed(state: RunState, names: Mapping[str, str]) -> RunState:
    """The state with other names for the graphs of added tasks."""
    nodes = {key: replace(record, graph=names.get(record.graph, record.graph)) for key, record in state.nodes.items()}
    outbox = [replace(item, command=_renamed(item.command, names)) for item in state.outbox.values()]
    return replace(state.copy(), nodes=nodes, outbox={item.command: item for item in outbox})


def _renamed(command: Command, names: Mapping[str, str]) -> Command:
    if isinstance(command, ExpireRun):
        return command
    return replace(command, graph=names.get(command.graph, command.graph))


class _Resumption:
    def __init__(self, state: RunState, plan_of: PlanOf) -> None:
        self.state = state.copy()
        self.plan_of = plan_of
        self.sent: set[str] = set()  # the activations that another command sends

    def run(self, asked: Iterable[Asked]) -> tuple[RunState, tuple[Emission, ...]]:
        state = self.state
        state.counts = {key: count for key, count in state.counts.items() if key != "late" and key[:5] != "late:"}
        state.status = RunStatus.RUNNING
        present = [(key, record, place) for key, record, place in self.places() if self.is_open(place)]
        emissions: list[Emission] = []
        for _, record, place in present:
            if place.spec.is_group and record.state is NodeState.RUNNING:
                emissions += self.group(place)
        for key, record, place in present:
            if not place.spec.is_group:
                emissions += self.task(key, record, place)
        emissions += [kept for item in state.outbox.values() for kept in self.queued(item.command)]
        emissions += [item for one in asked for item in self.waits(one)]
        state.outbox = {item.command: item for item in emissions}
        return state, tuple(emissions)

    def places(self) -> Iterator[tuple[str, NodeRecord, Place]]:
        for key, record in list(self.state.nodes.items()):
            if not record.state.is_final:
                yield key, record, Place.of(self.plan_of(record.graph), key)

    def is_open(self, place: Place) -> bool:
        """Whether no group around it has ended."""
        return not any(self.has_ended(scope) for scope in place.scopes)

    def has_ended(self, key: str) -> bool:
        record = self.state.nodes.get(key)
        return record is not None and record.state.is_final

    def task(self, key: str, record: NodeRecord, place: Place) -> Iterator[Emission]:
        if record.state is NodeState.WAITING:
            return
        if record.state is NodeState.RUNNING:
            self.state.nodes[key] = replace(record, state=NodeState.QUEUED, worker="")
            self.state.steps -= 1
        if key not in self.sent or record.attempt > 1:
            yield Emission(DispatchNode(key, record.attempt, place.graph))

    def group(self, place: Place) -> Iterator[Emission]:
        spec, key, graph = place.spec, place.key, place.graph
        if spec.timeout is not None:
            yield Emission(ExpireGroup(key, graph), delay=spec.timeout)
        if spec.map is not None and not self.state.arrivals.get(f"items:{key}", (0, 0))[0]:
            yield Emission(OpenGroup(key, graph))
            return
        needs = len(spec.exits) if spec.map is None else self.state.counts.get(place.barrier, 0)
        arrived, _ = self.state.arrivals.get(place.barrier, (0, 0))
        if arrived >= needs:
            yield Emission(CloseBarrier(key, graph))
            return
        members = self.members(place)
        if arrived:
            missing = [member for member in members if member not in self.state.nodes]
            yield from (Emission(DispatchNode(member, 1, graph)) for member in missing)
            return
        self.sent.update(members)
        yield Emission(OpenGroup(key, graph) if spec.map is None else OpenMembers(key, 0, len(members), needs, graph))

    def members(self, place: Place) -> list[str]:
        """The tasks that start when the group opens; of a mapped task, the members that were started by now."""
        if place.spec.map is None:
            return [place.inside(entry).key for entry in place.spec.entries if not place.plan[entry].is_group]
        prefix, suffix = place.members
        return [f"{prefix}{index}{suffix}" for index in range(self.state.counts.get(f"next:{place.key}", 0))]

    def queued(self, command: Command) -> Iterator[Emission]:
        """What no record tells of, but the outbox."""
        match command:
            case SkipNode(node) if not self.has_ended(node):
                yield Emission(command)
            case FinishNode(node, attempt):
                record = self.state.nodes.get(node)
                if record is not None and record.attempt == attempt and not record.state.is_final:
                    yield Emission(command)
            case ExpireRun(seconds):
                yield Emission(command, delay=seconds)

    def waits(self, asked: Asked) -> Iterator[Emission]:
        record = self.state.nodes.get(asked.node)
        if record is not None and record.state is NodeState.WAITING and record.attempt == asked.attempt:
            yield Emission(ExpireFeedback(asked.node, asked.attempt, asked.request, record.graph), delay=asked.seconds)
