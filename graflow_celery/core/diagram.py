"""A TaskGraph as Mermaid, Graphviz or plain text."""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import TopologicalSorter

from graflow_celery.core.expr import ParallelGroup
from graflow_celery.core.graph import TaskGraph
from graflow_celery.core.mapping import MappedTask


def to_mermaid(graph: TaskGraph) -> str:
    """A Mermaid flowchart, groups as subgraphs."""
    names = {node_id: f"n{index}" for index, node_id in enumerate(graph.nodes)}
    lines = ["flowchart LR"]

    def draw(node_id: str, indent: str) -> Iterator[str]:
        node = graph.get_node(node_id)
        label = node_id.replace('"', "#quot;")
        if isinstance(node, ParallelGroup):
            yield f'{indent}subgraph {names[node_id]}["{label}"]'
            for member in node.member_ids:
                yield from draw(member, indent + "    ")
            yield f"{indent}end"
        else:
            left, right = ("[[", "]]") if isinstance(node, MappedTask) else ("[", "]")
            yield f'{indent}{names[node_id]}{left}"{label}"{right}'

    for node_id in _outermost(graph):
        lines += draw(node_id, "    ")
    lines += [f"    {names[source]} --> {names[target]}" for source, target in graph.edges]
    return "\n".join(lines) + "\n"


def to_dot(graph: TaskGraph, name: str = "workflow") -> str:
    """A Graphviz digraph, groups as clusters."""
    lines = [f"digraph {_quoted(name)} {{", "  rankdir=LR; compound=true;", "  node [shape=box, style=rounded];"]

    def draw(node_id: str, indent: str) -> Iterator[str]:
        node = graph.get_node(node_id)
        if isinstance(node, ParallelGroup):
            yield f"{indent}subgraph {_quoted('cluster_' + node_id)} {{"
            yield f"{indent}  label={_quoted(node_id)};"
            yield f"{indent}  {_quoted(node_id)} [shape=point];"
            for member in node.member_ids:
                yield from draw(member, indent + "  ")
            yield f"{indent}}}"
        else:
            shape = " [shape=box3d]" if isinstance(node, MappedTask) else ""
            yield f"{indent}{_quoted(node_id)}{shape};"

    for node_id in _outermost(graph):
        lines += draw(node_id, "  ")
    lines += [f"  {_quoted(source)} -> {_quoted(target)};" for source, target in graph.edges]
    return "\n".join([*lines, "}"]) + "\n"


def to_text(graph: TaskGraph) -> str:
    """One line a node, in order, members of groups indented, with what comes after each."""
    lines: list[str] = []

    def draw(node_id: str, indent: str) -> None:
        node = graph.get_node(node_id)
        after = graph.successors(node_id)
        arrow = f"  ->  {', '.join(after)}" if after else ""
        if isinstance(node, MappedTask):
            lines.append(f"{indent}{node_id}: one member for each item{arrow}")
        elif isinstance(node, ParallelGroup):
            lines.append(f"{indent}{node_id}: group of {len(node.tasks)}{arrow}")
            for member in node.member_ids:
                draw(member, indent + "  ")
        else:
            lines.append(f"{indent}{node_id}{arrow}")

    for node_id in _outermost(graph):
        draw(node_id, "")
    return "\n".join(lines) + "\n"


def _outermost(graph: TaskGraph) -> list[str]:
    """What is inside of no group, each after what comes before it; as it was written where there is a cycle."""
    inside = set(graph.members())
    outside = [node_id for node_id in graph.nodes if node_id not in inside]
    if graph.detect_cycles():
        return outside
    return list(TopologicalSorter({node_id: graph.predecessors(node_id) for node_id in outside}).static_order())


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
