"""A TaskGraph as Mermaid, Graphviz or plain text."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import TopologicalSorter

from graflow_celery.core.expr import ParallelGroup
from graflow_celery.core.graph import TaskGraph
from graflow_celery.core.mapping import MappedTask

#: Lines are indented no deeper: of groups that stand a thousand deep, most of the text would be blanks.
DEEPEST = 40
#: A node, how deep it is drawn, and whether a group's members have been told of: then it only has to be closed.
Visit = tuple[str, int, bool]


def to_mermaid(graph: TaskGraph) -> str:
    """A Mermaid flowchart, groups as subgraphs."""
    names = {node_id: f"n{index}" for index, node_id in enumerate(graph.nodes)}
    lines = ["flowchart LR"]
    for node_id, depth, closes in _visits(graph):
        node, indent, label = graph.get_node(node_id), "    " * (depth + 1), node_id.replace('"', "#quot;")
        if closes:
            lines.append(f"{indent}end")
        elif isinstance(node, ParallelGroup):
            lines.append(f'{indent}subgraph {names[node_id]}["{label}"]')
        else:
            left, right = ("[[", "]]") if isinstance(node, MappedTask) else ("[", "]")
            lines.append(f'{indent}{names[node_id]}{left}"{label}"{right}')
    lines += [f"    {names[source]} --> {names[target]}" for source, target in graph.edges]
    return "\n".join(lines) + "\n"


def to_dot(graph: TaskGraph, name: str = "workflow") -> str:
    """A Graphviz digraph, groups as clusters."""
    lines = [f"digraph {_quoted(name)} {{", "  rankdir=LR; compound=true;", "  node [shape=box, style=rounded];"]
    for node_id, depth, closes in _visits(graph):
        node, indent = graph.get_node(node_id), "  " * (depth + 1)
        if closes:
            lines.append(f"{indent}}}")
        elif isinstance(node, ParallelGroup):
            lines.append(f"{indent}subgraph {_quoted('cluster_' + node_id)} {{")
            lines.append(f"{indent}  label={_quoted(node_id)};")
            lines.append(f"{indent}  {_quoted(node_id)} [shape=point];")
        else:
            shape = " [shape=box3d]" if isinstance(node, MappedTask) else ""
            lines.append(f"{indent}{_quoted(node_id)}{shape};")
    lines += [f"  {_quoted(source)} -> {_quoted(target)};" for source, target in graph.edges]
    return "\n".join([*lines, "}"]) + "\n"


def to_text(graph: TaskGraph) -> str:
    """One line a node, in order, members of groups indented, with what comes after each."""
    lines: list[str] = []
    for node_id, depth, closes in _visits(graph):
        if closes:
            continue
        node, indent = graph.get_node(node_id), "  " * depth
        after = graph.successors(node_id)
        arrow = f"  ->  {', '.join(after)}" if after else ""
        if isinstance(node, MappedTask):
            lines.append(f"{indent}{node_id}: one member for each item{arrow}")
        elif isinstance(node, ParallelGroup):
            lines.append(f"{indent}{node_id}: group of {len(node.tasks)}{arrow}")
        else:
            lines.append(f"{indent}{node_id}{arrow}")
    return "\n".join(lines) + "\n"


def _visits(graph: TaskGraph) -> Iterator[Visit]:
    """Every node, each group before and after its members. No recursion: groups may stand deep in one another."""
    pending: list[Visit] = [(node_id, 0, False) for node_id in reversed(_outermost(graph))]
    while pending:
        node_id, depth, closes = visit = pending.pop()
        yield visit
        node = graph.get_node(node_id)
        if isinstance(node, ParallelGroup) and not closes:
            pending.append((node_id, depth, True))
            pending += [(member, min(depth + 1, DEEPEST), False) for member in reversed(node.member_ids)]


def _outermost(graph: TaskGraph) -> list[str]:
    """What is inside of no group, each after what comes before it; as it was written where there is a cycle."""
    inside = set(graph.members())
    outside = [node_id for node_id in graph.nodes if node_id not in inside]
    if graph.detect_cycles():
        return outside
    return list(TopologicalSorter({node_id: graph.predecessors(node_id) for node_id in outside}).static_order())


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
