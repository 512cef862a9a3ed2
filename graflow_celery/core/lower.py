"""From what the author wrote to what the Scheduler reads: TaskGraph -> Plan, with every check that needs no run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from graflow_celery.core.activation import RESERVED
from graflow_celery.core.expr import Executable, ParallelGroup, SequentialTask
from graflow_celery.core.graph import TaskGraph
from graflow_celery.core.mapping import MappedTask
from graflow_celery.core.plan import NodeSpec, Plan, TaskOptions
from graflow_celery.core.policy import FifoPolicy, SchedulingPolicy, StrictGroupPolicy
from graflow_celery.errors import GraphCompilationError

_STRICT, _OPTIONS = StrictGroupPolicy(), TaskOptions()


@dataclass
class _Scopes:
    """Which group each node is in, what each group starts with and waits for, and what follows a node in its member."""

    group_of: dict[str, str] = field(default_factory=dict)
    entries: dict[str, list[str]] = field(default_factory=dict)
    exits: dict[str, list[str]] = field(default_factory=dict)
    exit_index: dict[str, int] = field(default_factory=dict)
    member_of: dict[str, int] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)


def lower(
    graph: TaskGraph, name: str, start_node: str | None = None, scheduling: SchedulingPolicy | None = None
) -> Plan:
    """The plan of everything that can be reached from the start.

    Args:
        graph: what the workflow's author wrote.
        name: the workflow's name.
        start_node: where to begin; needed only if no single node stands out.
        scheduling: which of the nodes that are ready goes first; the one that got ready first by default.

    Raises:
        GraphCompilationError: the workflow cannot run as written; the message names the nodes. Its subclasses:
            UnknownNodeError, EmptyGroupError, DuplicateTaskError.
    """
    start = graph.start_node(start_node)
    scopes = _scopes(graph)
    _check_edges(graph, scopes)
    reachable = _reachable(graph, scopes, start)
    _check_ids(reachable)
    loops = _loops(graph, start)
    nodes = {node_id: _spec(graph, scopes, reachable, loops, node_id) for node_id in reachable}
    return Plan(name=name, start=start, nodes=nodes, scheduling=scheduling or FifoPolicy())


def _spec(
    graph: TaskGraph, scopes: _Scopes, reachable: dict[str, None], loops: set[tuple[str, str]], node_id: str
) -> NodeSpec:
    node = graph.get_node(node_id)
    before = [
        source for source in graph.predecessors(node_id) if source in reachable and (source, node_id) not in loops
    ]
    after = graph.successors(node_id)
    options = node.template.options if isinstance(node, MappedTask) else getattr(node, "options", None)
    group = node if isinstance(node, ParallelGroup | MappedTask) else None
    return NodeSpec(
        id=node_id,
        successors=tuple([target for target in after if (node_id, target) not in loops]),
        loops=tuple([target for target in after if (node_id, target) in loops]),
        needs=len(before),
        group=scopes.group_of.get(node_id),
        exit_index=scopes.exit_index.get(node_id, -1),
        entries=tuple(scopes.entries.get(node_id, ())),
        exits=tuple(scopes.exits.get(node_id, ())),
        timeout=None if group is None else group.timeout,
        batch=None if group is None else group.batch,
        map=node.spec(graph.predecessors(node_id)) if isinstance(node, MappedTask) else None,
        policy=_STRICT if group is None else group.policy,
        options=options or _OPTIONS,
    )


def _scopes(graph: TaskGraph) -> _Scopes:
    scopes = _Scopes()
    for group_id, group in graph.nodes.items():
        if not isinstance(group, ParallelGroup):
            continue
        scopes.exit_index |= {exit_id: index for index, exit_id in enumerate(_exits(group))}
        seen: set[str] = set()
        scopes.entries[group_id] = [member.leftmost.task_id for member in group.tasks]
        scopes.exits[group_id] = _exits(group)
        for index, member in enumerate(group.tasks):
            steps = [step.task_id for step in _steps(member)]
            scopes.after.update(pairwise(steps))
            for step in _steps(member):
                scopes.member_of.setdefault(step.task_id, index)
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
    return member if isinstance(member, SequentialTask) else (member,)


def _check_edges(graph: TaskGraph, scopes: _Scopes) -> None:
    for source, target in graph.edges:
        inside, outside = scopes.group_of.get(source), scopes.group_of.get(target)
        if inside != outside:
            raise GraphCompilationError(
                f"The edge '{source}' >> '{target}' crosses the border of parallel group "
                f"'{inside if inside is not None else outside}'. Wire the group itself, or put both on one side of it."
            )
        if inside is not None and scopes.member_of[source] != scopes.member_of[target]:
            raise GraphCompilationError(
                f"'{source}' and '{target}' stand side by side in parallel group '{inside}', but an edge puts one "
                f"after the other. Write them as one member: ({source} >> {target}) | ..."
            )
        if inside is not None and target != scopes.after.get(source):
            raise GraphCompilationError(
                f"The edge '{source}' >> '{target}' makes a member of parallel group '{inside}' more than a chain. "
                f"Inside of a group, loop with next_iteration() or next_task(..., goto=True)."
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


def _check_ids(nodes: Iterable[str]) -> None:
    for node_id in nodes:
        if RESERVED.search(node_id):
            raise GraphCompilationError(
                f"Task id '{node_id}' ends like the name of a pass ('@1') or of an item ('[1]'). Choose another: "
                f"@task(id=...)."
            )


def _loops(graph: TaskGraph, start: str) -> set[tuple[str, str]]:
    """The edges that close a cycle: those that lead back to a node on the way from the start, in the order written."""
    loops: set[tuple[str, str]] = set()
    done: set[str] = set()
    path: dict[str, None] = {start: None}
    stack = [(start, iter(graph.successors(start)))]
    while stack:
        node_id, successors = stack[-1]
        for target in successors:
            if target in path:
                loops.add((node_id, target))
            elif target not in done:
                path[target] = None
                stack.append((target, iter(graph.successors(target))))
                break
        else:
            stack.pop()
            path.pop(node_id)
            done.add(node_id)
    return loops
