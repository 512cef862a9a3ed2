"""From what the author wrote to what the Scheduler reads: TaskGraph -> Plan, with every check that needs no run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from graflow_celery.core.expr import Executable, ParallelGroup, SequentialTask
from graflow_celery.core.graph import TaskGraph
from graflow_celery.core.plan import NodeSpec, Plan, TaskOptions
from graflow_celery.core.policy import StrictGroupPolicy
from graflow_celery.core.task import Task
from graflow_celery.errors import GraphCompilationError


@dataclass
class _Scopes:
    """Which group each node is in, and what each group starts with and waits for."""

    group_of: dict[str, str] = field(default_factory=dict)
    entries: dict[str, list[str]] = field(default_factory=dict)
    exits: dict[str, list[str]] = field(default_factory=dict)
    exit_index: dict[str, int] = field(default_factory=dict)
    entered: set[str] = field(default_factory=set)


def lower(graph: TaskGraph, name: str, start_node: str | None = None) -> Plan:
    """The plan of everything that can be reached from the start.

    Args:
        graph: what the workflow's author wrote.
        name: the workflow's name.
        start_node: where to begin; needed only if no single node stands out.

    Raises:
        GraphCompilationError: the workflow cannot run as written; the message names the nodes. Its subclasses:
            UnknownNodeError, EmptyGroupError, DuplicateTaskError.
    """
    start = graph.start_node(start_node)
    scopes = _scopes(graph)
    _check_edges(graph, scopes)
    reachable = _reachable(graph, scopes, start)
    _check_cycles(graph, reachable)
    nodes: dict[str, NodeSpec] = {}
    for node_id in reachable:
        group = scopes.group_of.get(node_id)
        node = graph.get_node(node_id)
        nodes[node_id] = NodeSpec(
            id=node_id,
            successors=tuple(graph.successors(node_id)),
            needs=sum(source in reachable for source in graph.predecessors(node_id)),
            group=group,
            exit_index=scopes.exit_index.get(node_id, -1),
            entries=tuple(scopes.entries.get(node_id, ())),
            exits=tuple(scopes.exits.get(node_id, ())),
            weight=_weight(scopes, node_id),
            policy=node.policy if isinstance(node, ParallelGroup) else StrictGroupPolicy(),
            options=node.options if isinstance(node, Task) else TaskOptions(),
        )
    return Plan(name=name, start=start, nodes=nodes)


def _scopes(graph: TaskGraph) -> _Scopes:
    scopes = _Scopes()
    for group_id, group in graph.nodes.items():
        if not isinstance(group, ParallelGroup):
            continue
        scopes.exit_index |= {exit_id: index for index, exit_id in enumerate(_exits(group))}
        seen: set[str] = set()
        scopes.entries[group_id] = [member.leftmost.task_id for member in group.tasks]
        scopes.entered.update(scopes.entries[group_id])
        scopes.exits[group_id] = _exits(group)
        for member in group.tasks:
            for step in _steps(member):
                if step.task_id in seen:
                    raise GraphCompilationError(f"Task '{step.task_id}' is twice in parallel group '{group_id}'.")
                seen.add(step.task_id)
                other = scopes.group_of.setdefault(step.task_id, group_id)
                if other != group_id:
                    raise GraphCompilationError(
                        f"Task '{step.task_id}' is a member of two parallel groups, '{other}' and '{group_id}'. "
                        f"Use a copy in one of them: {step.task_id}(task_id=...)."
                    )
    return scopes


def _exits(group: ParallelGroup) -> list[str]:
    return [member.rightmost.task_id for member in group.tasks]


def _steps(member: Executable) -> Iterable[Executable]:
    return member.tasks if isinstance(member, SequentialTask) else (member,)


def _check_edges(graph: TaskGraph, scopes: _Scopes) -> None:
    for source, target in graph.edges:
        inside, outside = scopes.group_of.get(source), scopes.group_of.get(target)
        if inside != outside:
            raise GraphCompilationError(
                f"The edge '{source}' >> '{target}' crosses the border of parallel group "
                f"'{inside if inside is not None else outside}'. Wire the group itself, or put both on one side of it."
            )
        if inside is not None and target in scopes.entered:
            raise GraphCompilationError(
                f"'{source}' and '{target}' stand side by side in parallel group '{inside}', but an edge puts one "
                f"after the other. Write them as one member: ({source} >> {target}) | ..."
            )


def _reachable(graph: TaskGraph, scopes: _Scopes, start: str) -> dict[str, None]:
    found: dict[str, None] = {start: None}
    stack = [start]
    while stack:
        node_id = stack.pop()
        for follower in [*scopes.entries.get(node_id, ()), *graph.successors(node_id)]:
            if follower not in found:
                found[follower] = None
                stack.append(follower)
    return found


def _check_cycles(graph: TaskGraph, reachable: Iterable[str]) -> None:
    try:
        TopologicalSorter({node: graph.predecessors(node) for node in reachable}).prepare()
    except CycleError as error:
        cycle = " >> ".join(error.args[1])
        raise GraphCompilationError(f"The workflow has a cycle: {cycle}. Take one of these edges out.") from None


def _weight(scopes: _Scopes, node_id: str) -> int:
    """How many tasks start when the node does: one, or what a group and the groups it starts with open."""
    total, stack = 0, [node_id]
    while stack:
        entries = scopes.entries.get(stack.pop())
        if entries is None:
            total += 1
        else:
            stack += entries
    return total
