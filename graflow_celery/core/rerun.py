"""From a run that has ended to the same run going on: what failed or was cut off, and all that follows from it. Pure.

Nothing is taken back in the counters of the run. A new state is built instead, by telling the Scheduler once more of
everything that is kept: what comes out of that has its joins, barriers and passes as if the run had just come so far.
What was not told of is open in it: the failed and the cut-off nodes, and, once those have ended, what comes after them.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from graflow_celery.core.activation import node_of, split
from graflow_celery.core.commands import Command, DispatchNode, ExpireGroup, OpenGroup, OpenMembers, SkipNode
from graflow_celery.core.events import BarrierReached, Event, MapExpanded, NodeSkipped, NodeSucceeded, RunStarted
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Owner, Plan
from graflow_celery.core.scheduler import JUMPED, LEFT, Scheduler, jumped
from graflow_celery.core.state import Emission, NodeRecord, NodeState, RunState, RunStatus

PlanOf = Callable[[str], Plan]


@dataclass(frozen=True, slots=True)
class Rerun:
    """How a run that ended goes on.

    Attributes:
        state: from which it does. Its attempts are counted from ``state.first`` on.
        emissions: what has to be carried out for it; nothing if there is nothing to run again.
        kept: the activations that have ended and do not run again.
        again: those that begin again at once, as far as they had begun before.
        undone: those that had begun or ended, and will be reached again by what runs again; or will not.
        stale_inputs: the activations that are not to receive what was kept for them.
    """

    state: RunState
    emissions: tuple[Emission, ...]
    kept: frozenset[str]
    again: frozenset[str]
    undone: frozenset[str]
    stale_inputs: frozenset[str]

    @property
    def stale_results(self) -> frozenset[str]:
        """The nodes whose results and errors are no longer those of the run, by their ids."""
        return frozenset(map(node_of, self.again | self.undone)) - frozenset(map(node_of, self.kept))


def rerun(state: RunState, plan_of: PlanOf, chosen: Iterable[str] = (), timeout: float | None = None) -> Rerun:
    """What runs again of a run that has ended, and what is kept.

    Every node that failed or had not ended when the run did runs again, and so do the activations in ``chosen``,
    although they succeeded. What comes after one of those is reached anew. A group that failed, or has one of them in
    it, runs the members again that failed or did not end, and keeps the others; so does a node whose added tasks
    failed. A group that met its policy is kept whole, with the members in it that failed.

    A node that runs again gets the input that its last attempt got, and has its retries and losses before it; so has
    the run its steps, and each timer its whole time.

    Args:
        plan_of: the plan of the workflow as written (``""``) or with the tasks of an added graph.
        timeout: that of the run, in seconds, if it has one.

    Raises:
        UnknownNodeError: the state speaks of a node that its plan does not have.
    """
    return _Replay(state, plan_of, frozenset(chosen)).run(timeout)


def activations(state: RunState, plan_of: PlanOf, node: str) -> tuple[str, ...]:
    """The activations that a person means by a node's id or by an activation key, of those that ran in a run."""
    named = {key for key in state.nodes if node in (key, node_of(key))}
    if node != node_of(node):
        named &= {node}
    found = {key for key in named if state.nodes[key].state is not NodeState.SKIPPED}
    if not found:
        return ()
    return tuple(sorted(found - _stand_ins(state, plan_of)))


class Homes:
    """The graphs that the activations of a run belong to. The record of one that was skipped does not say it."""

    def __init__(self, state: RunState) -> None:
        self._nodes = state.nodes
        self._added = {split(key)[1][:1]: record.graph for key, record in state.nodes.items() if record.graph}

    def __getitem__(self, key: str) -> str:
        record = self._nodes.get(key)
        if record is not None and record.graph:
            return record.graph
        return self._added.get(split(key)[1][:1], "")


def _stand_ins(state: RunState, plan_of: PlanOf) -> set[str]:
    """Records that stand where a barrier looks for a member's outcome, of nodes that another one of it ended before."""
    found: set[str | None] = set()
    homes = Homes(state)
    for key in state.nodes:
        place = Place.of(plan_of(homes[key]), key)
        found.add(place.mirror)
        if place.spec.group is not None and f"{LEFT}{key}" in state.counts and place.last.home_key != key:
            found.add(place.last.home_key)
    return {key for key in found if key is not None and f"{LEFT}{key}" not in state.counts}


class _Replay:
    def __init__(self, old: RunState, plan_of: PlanOf, chosen: frozenset[str]) -> None:
        self.old = old
        self.plan_of = plan_of
        self.chosen = chosen
        self.homes = Homes(old)
        self.state = RunState(max_steps=old.max_steps, first=_next_first(old))
        self.scheduler = Scheduler()
        self.todo: deque[Command] = deque()
        self.kept: set[str] = set()
        self.whole: set[str] = set()  # groups, and nodes with the tasks that they added, that are kept as they are
        self.again: set[str] = set()
        self.items: set[str] = set()  # mapped tasks whose items are kept
        self.plans: dict[str, Plan] = {}
        self.jumps = _jumps(old)
        self.added = {(owner.node, owner.attempt): key for key, owner in self.owners()}
        self.reopened = {outer for key in chosen for outer in self.around(key)}

    def run(self, timeout: float | None) -> Rerun:
        self.apply(self.plan(""), RunStarted(timeout))
        while self.todo:
            self.turn(self.todo.popleft())
        self.keep_inside()
        state = self.state
        state.outbox = {item.command: Emission(item.command, delay=item.delay) for item in state.outbox.values()}
        if self.old.last_node in self.kept:
            state.last_node = self.old.last_node
        undone = frozenset(self.old.nodes.keys() - state.nodes.keys())
        return Rerun(
            state,
            tuple(state.outbox.values()),
            frozenset(self.kept),
            frozenset(self.again),
            undone,
            frozenset(key for key in undone if not self.is_item(key)),
        )

    # ------------------------------------------------------------------------------------ what is told once more

    def turn(self, command: Command) -> None:
        """Tells what became of a command before, or leaves it to be carried out."""
        match command:
            case DispatchNode(node, _, graph):
                if not self.is_closed(command, node, graph):
                    self.task(command)
            case OpenGroup(group, graph):
                if not self.is_closed(command, group, graph):
                    self.group(command)
            case ExpireGroup(group, graph):
                self.is_closed(command, group, graph)
            case OpenMembers():
                self.members(command)
            case SkipNode(node, graph) if node in self.old.nodes:
                del self.state.outbox[command]
                self.keep(node, graph, NodeSkipped(node))
            case _:
                pass

    def is_closed(self, command: Command, key: str, graph: str) -> bool:
        """Whether it stands in a group that is kept: then nothing is to be done for it."""
        closed = any(outer in self.whole for outer in (key, *self.place(key, graph).scopes))
        if closed:
            self.state.outbox.pop(command, None)
        if closed and key not in self.whole:
            self.state.nodes.pop(key, None)  # what it had come to is put back in the end
        return closed

    def task(self, command: DispatchNode) -> None:
        key, graph = command.node, command.graph
        event = self.ending(key)
        if event is None:
            self.begin_again(key)
            return
        del self.state.outbox[command]
        if event.added is not None:
            self.wait(key, event)
        else:
            self.keep(key, graph, event)

    def ending(self, key: str) -> NodeSucceeded | None:
        """How a task ended, if it did and is kept."""
        record, first = self.old.nodes.get(key), self.state.first
        if record is None or key in self.chosen:
            return None
        goto = self.jumps.get(key, ())
        added = self.added.get((key, record.attempt))
        if added is not None and (record.state is not NodeState.SUCCEEDED or key in self.reopened):
            return NodeSucceeded(key, first, goto, added)
        if not self.met(key, record):
            return None
        ended_run = self.old.status is RunStatus.TERMINATED and self.old.failed_node == key
        return NodeSucceeded(key, first, goto, leaves=ended_run or f"{LEFT}{key}" in self.old.counts)

    def met(self, key: str, record: NodeRecord) -> bool:
        """Whether it succeeded. The record of one that jumped may by now be that of a later pass of its member."""
        return record.state is NodeState.SUCCEEDED or f"{LEFT}{key}" in self.old.counts

    def wait(self, key: str, event: NodeSucceeded) -> None:
        """The node's code is done; of the tasks that it added some run again."""
        record = self.old.nodes[key]
        self.apply(self.extended(self.homes[key], self.homes[event.added or ""]), event)
        waiting = replace(record, state=NodeState.WAITING, losses=0, retries=0)
        self.put(key, waiting)

    def group(self, command: OpenGroup) -> None:
        key, graph = command.group, command.graph
        record, place = self.old.nodes.get(key), self.place(key, graph)
        if record is None or key in self.chosen:
            self.begin_again(key)
        elif self.met(key, record) and key not in self.reopened:
            del self.state.outbox[command]
            self.whole.add(key)
            self.keep(key, graph, BarrierReached(key, None, self.old.jumps.get(key, ())))
        elif place.spec.map is None:
            self.again.add(key)
            self.entries(command, place)
        elif f"items:{key}" in self.old.arrivals:
            self.again.add(key)
            self.items.add(key)
            self.apply(self.plan(graph), MapExpanded(key, self.old.counts.get(place.barrier, 0)))
        else:
            self.begin_again(key)

    def entries(self, command: OpenGroup, place: Place) -> None:
        """The tasks that a group starts with: sent together if none of them is kept, else one by one."""
        keys = [place.inside(entry).key for entry in place.spec.entries if not place.plan[entry].is_group]
        if all(self.ending(key) is None for key in keys):
            self.begin_inside(keys, command.graph)
            return
        del self.state.outbox[command]
        for key in keys:
            self.task(self.dispatch(key, command.graph))

    def members(self, command: OpenMembers) -> None:
        """The members of a mapped task, as many at a time as may run at the same time."""
        place = self.place(command.group, command.graph)
        prefix, suffix = place.members
        keys = [f"{prefix}{index}{suffix}" for index in range(command.total)]
        endings = {key: event for key in keys if (event := self.ending(key)) is not None}
        if not endings:
            self.begin_inside(keys[: command.count], command.graph)
            return
        del self.state.outbox[command]
        for key, event in endings.items():
            if event.added is not None:
                self.wait(key, event)
            else:
                self.keep(key, command.graph, event, drawn=False)
        rest = [index for index, key in enumerate(keys) if key not in endings]
        now = rest[: command.count]
        self.state.counts[f"next:{command.group}"] = now[-1] + 1 if len(now) < len(rest) else command.total
        for index in now:
            self.dispatch(keys[index], command.graph)
            self.begin_again(keys[index])

    def apply(self, plan: Plan, event: Event, drawn: bool = True) -> str | None:
        """Tells the Scheduler of an event, and returns the key under which a barrier looks for its outcome."""
        transition = self.scheduler.decide(plan, event)
        applied = self.state.apply(transition if drawn else replace(transition, draw=None))
        self.todo.extend(emission.command for emission in applied.emissions)
        return transition.mirror

    def keep(self, key: str, graph: str, event: Event, drawn: bool = True) -> None:
        """Tells of an activation's end, and leaves its record as it was."""
        mirror = self.apply(self.plan(graph), event, drawn)
        now = self.state.nodes[key]
        self.put(key, replace(self.old.nodes.get(key, now), state=now.state))
        self.kept.add(key)
        if mirror is not None:
            self.state.nodes[mirror] = self.old.nodes.get(mirror, now)
            self.kept.add(mirror)
        if (key, self.state.nodes[key].attempt) in self.added:
            self.whole.add(key)

    # ------------------------------------------------------------------------------------ what runs again

    def dispatch(self, key: str, graph: str) -> DispatchNode:
        command = DispatchNode(key, self.state.first, graph)
        self.state.outbox[command] = Emission(command)
        self.state.nodes[key] = NodeRecord(NodeState.QUEUED, self.state.first, graph=graph)
        return command

    def begin_again(self, key: str) -> None:
        """An activation that is due: it goes on with the input and in the cycle of its last attempt."""
        record, now = self.old.nodes.get(key), self.state.nodes[key]
        if record is not None:
            self.again.add(key)
            self.put(key, replace(now, cycle=max(now.cycle, record.cycle)))

    def begin_inside(self, keys: Iterable[str], graph: str) -> None:
        """Activations that are sent with their group."""
        for key in keys:
            if key in self.old.nodes:
                self.state.nodes[key] = NodeRecord(NodeState.QUEUED, self.state.first, graph=graph)
                self.begin_again(key)

    def put(self, key: str, record: NodeRecord) -> None:
        self.state.nodes[key] = record
        count = f"cycle:{node_of(key)}"
        if record.cycle > self.state.counts.get(count, 0):
            self.state.counts[count] = record.cycle

    # ------------------------------------------------------------------------------------ at the end

    def keep_inside(self) -> None:
        """What lies in something that is kept whole stays as it was, however it was."""
        for key, record in self.old.nodes.items():
            if key not in self.state.nodes and any(outer in self.whole for outer in self.around(key)):
                self.state.nodes[key] = record
                self.state.ended += record.state.is_final
                self.kept.add(key)
        for key in self.kept:
            self.keep_notes(key)

    def keep_notes(self, key: str) -> None:
        """What another retry of the run would ask for, of what was not told of in this one."""
        old, state = self.old, self.state
        names = [f"{LEFT}{key}", f"barrier:{key}", f"next:{key}", *(jumped(key, to) for to in self.jumps.get(key, ()))]
        state.counts |= {name: old.counts[name] for name in names if name in old.counts}
        if key in old.jumps:
            state.jumps[key] = old.jumps[key]
        if f"items:{key}" in old.arrivals:
            state.arrivals[f"items:{key}"] = old.arrivals[f"items:{key}"]

    # ------------------------------------------------------------------------------------ where things are

    def plan(self, graph: str) -> Plan:
        if graph not in self.plans:
            self.plans[graph] = replace(self.plan_of(graph), first=self.state.first)
        return self.plans[graph]

    def extended(self, graph: str, added: str) -> Plan:
        """The plan of a graph with the tasks that a node of it added."""
        plan = self.plan(added)
        nodes = {node: plan.nodes[node] for node, home in plan.homes.items() if home == added}
        return self.plan(graph).extended(added, nodes)

    def place(self, key: str, graph: str) -> Place:
        return Place.of(self.plan(graph), key)

    def owners(self) -> Iterator[tuple[str, Owner]]:
        """The groups of added tasks, and whose they are."""
        for key, record in self.old.nodes.items():
            owner = self.plan(record.graph)[key].owner if record.graph else None
            if owner is not None:
                yield key, owner

    def around(self, key: str) -> Iterator[str]:
        """What it is a part of: the groups around it, the node that added them, the groups around that, and so on."""
        place = self.place(key, self.homes[key])
        yield from place.scopes
        outermost = place.scopes[-1] if place.scopes else key
        owner = place.plan[outermost].owner
        if owner is not None:
            yield owner.node
            yield from self.around(owner.node)

    def is_item(self, key: str) -> bool:
        """Whether it is a member of a mapped task whose items are not taken anew."""
        scopes = self.place(key, self.homes[key]).scopes
        return bool(scopes) and scopes[0] in self.items


def _next_first(old: RunState) -> int:
    """Above every attempt that may ever have been sent."""
    return 1 + max([old.first, *(record.attempt for record in old.nodes.values())])


def _jumps(old: RunState) -> Mapping[str, tuple[str, ...]]:
    """Where activations jumped to."""
    found: dict[str, tuple[str, ...]] = {}
    for name in old.counts:
        if name.startswith(JUMPED):
            key, target = json.loads(name.removeprefix(JUMPED))
            found[key] = (*found.get(key, ()), target)
    return found
