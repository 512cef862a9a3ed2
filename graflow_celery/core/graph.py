"""TaskGraph: the nodes, edges and groups of a workflow as its author wrote them. It runs nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType
from typing import Protocol

from graflow_celery.errors import DuplicateTaskError, GraphCompilationError, UnknownNodeError


class Node(Protocol):
    """What a graph holds: tasks and groups. ``member_ids`` is empty for a task."""

    @property
    def task_id(self) -> str: ...

    @property
    def member_ids(self) -> tuple[str, ...]: ...

    def register(self, graph: TaskGraph) -> None: ...


class TaskGraph:
    """Nodes by id, edges between them, parallel groups among the nodes. Built by expressions; validated by `lower`."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._successors: dict[str, dict[str, None]] = {}
        self._predecessors: dict[str, dict[str, None]] = {}
        self._templates: set[str] = set()
        self._first: str | None = None  # where the first edge that was written starts

    @property
    def nodes(self) -> Mapping[str, Node]:
        """Every node by its id, in the order of registration."""
        return MappingProxyType(self._nodes)

    @property
    def edges(self) -> list[tuple[str, str]]:
        return [(source, target) for source, targets in self._successors.items() for target in targets]

    def get_edges(self) -> list[tuple[str, str]]:
        return self.edges

    def add_node(self, node: Node, task_id: str | None = None, skip_if_exists: bool = False) -> None:
        """Adds a node under its id.

        Raises:
            DuplicateTaskError: another node has that id. Adding the same one again changes nothing.
        """
        node_id = task_id or node.task_id
        present = self._nodes.get(node_id)
        if present is node or (present is not None and skip_if_exists):
            return
        if present is not None:
            raise DuplicateTaskError(node_id)
        self._nodes[node_id] = node
        self._successors[node_id] = {}
        self._predecessors[node_id] = {}

    def add_edge(self, from_node: str, to_node: str) -> None:
        """Lets ``to_node`` follow ``from_node``. Raises UnknownNodeError if either is not in the graph."""
        for node_id in (from_node, to_node):
            self.get_node(node_id)
        self._first = self._first or from_node
        self._successors[from_node][to_node] = None
        self._predecessors[to_node][from_node] = None

    def get_node(self, task_id: str) -> Node:
        try:
            return self._nodes[task_id]
        except KeyError:
            raise UnknownNodeError(task_id, tuple(self._nodes)) from None

    def has_node(self, task_id: str) -> bool:
        return task_id in self._nodes

    def successors(self, node: str) -> list[str]:
        self.get_node(node)
        return list(self._successors[node])

    def predecessors(self, node: str) -> list[str]:
        self.get_node(node)
        return list(self._predecessors[node])

    def get_parallel_group_members(self, group_id: str) -> list[str]:
        node = self._nodes.get(group_id)
        return list(node.member_ids) if node is not None else []

    def remove_node(self, task_id: str) -> None:
        """Takes a node and its edges out of the graph."""
        self.get_node(task_id)
        for successor in self._successors.pop(task_id):
            del self._predecessors[successor][task_id]
        for predecessor in self._predecessors.pop(task_id):
            del self._successors[predecessor][task_id]
        del self._nodes[task_id]
        self._first = None if self._first == task_id else self._first

    def rename_node(self, old_task_id: str, new_task_id: str) -> None:
        """Gives a node another id; its edges stay. Raises UnknownNodeError or DuplicateTaskError."""
        node, first = self.get_node(old_task_id), self._first
        if new_task_id in self._nodes:
            raise DuplicateTaskError(new_task_id)
        sources, targets = self.predecessors(old_task_id), self.successors(old_task_id)
        self.remove_node(old_task_id)
        self.add_node(node, new_task_id)
        for source in sources:
            self.add_edge(source, new_task_id)
        for target in targets:
            self.add_edge(new_task_id, target)
        self._first = new_task_id if first == old_task_id else first

    def mark_template(self, task_id: str) -> None:
        """Notes that bound copies were made of a task, so that alone it is no start node."""
        self._templates.add(task_id)

    def is_loose_template(self, task_id: str) -> bool:
        """A task that bound copies were made of and that is itself wired to nothing."""
        return task_id in self._templates and not self._successors[task_id] and not self._predecessors[task_id]

    def get_start_nodes(self) -> list[str]:
        """Nodes outside of groups that nothing comes before, in the order of registration."""
        inside = set(self.members())
        return [
            node_id
            for node_id in self._nodes
            if node_id not in inside and not self._predecessors[node_id] and not self.is_loose_template(node_id)
        ]

    def members(self) -> Iterator[str]:
        """The ids of everything that is inside of a group."""
        for node in self._nodes.values():
            yield from node.member_ids

    def detect_cycles(self) -> list[list[str]]:
        """One cycle as a list of ids, in a list; an empty list if there is none."""
        try:
            TopologicalSorter({node: tuple(sources) for node, sources in self._predecessors.items()}).prepare()
        except CycleError as error:
            return [list(error.args[1])]
        return []

    def clear(self) -> None:
        self._nodes.clear()
        self._successors.clear()
        self._predecessors.clear()
        self._templates.clear()
        self._first = None

    def start_node(self, start: str | None = None) -> str:
        """The node that a run starts with: ``start``, or the only one that nothing comes before.

        Raises:
            UnknownNodeError: ``start`` is not in the graph.
            GraphCompilationError: it is inside of a group, or no single start node stands out.
        """
        if start is not None:
            self.get_node(start)
            if start in set(self.members()):
                raise GraphCompilationError(f"start_node='{start}' is inside of a parallel group; name the group.")
            return start
        starts = self.get_start_nodes()
        if len(starts) == 1:
            return starts[0]
        if not self._nodes:
            raise GraphCompilationError("The workflow has no tasks. Write some inside its `with` block.")
        if not starts:  # a cycle as a whole: it begins where its author began
            inside = set(self.members())
            outside = [node_id for node_id in self._nodes if node_id not in inside]
            return self._first if self._first in outside else outside[0]
        raise GraphCompilationError(
            f"The workflow has {len(starts)} start nodes ({', '.join(starts[:8])}). Say which one begins: "
            f"execute(start_node=...), or put them side by side: ({' | '.join(starts[:3])})."
        )

    def __str__(self) -> str:
        lines = [f"{source} >> {target}" for source, target in self.edges]
        lines += [
            f"{node_id} = ({' | '.join(node.member_ids)})" for node_id, node in self._nodes.items() if node.member_ids
        ]
        return "\n".join(lines or self._nodes)
