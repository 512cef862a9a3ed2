"""The lowered graph: what the Scheduler reads. Frozen values that hold no functions, so that they travel as JSON."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from graflow_celery.core.activation import item_of, split
from graflow_celery.core.policy import FifoPolicy, GroupPolicy, SchedulingPolicy, StrictGroupPolicy
from graflow_celery.core.quick import quick
from graflow_celery.core.retry import RetryPolicy
from graflow_celery.errors import UnknownNodeError

#: How often a task may run in one run by ``next_iteration`` if it does not say so itself; graflow's default.
MAX_CYCLES = 10


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """How a node is dispatched and what happens when it goes wrong. Times are in seconds.

    ``batch``: how many members of a group like this one travel in one message; None for what the group says.
    """

    queue: str | None = None
    priority: int | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    max_retries: int = 0
    retry: RetryPolicy | None = None
    max_cycles: int | None = None
    on_worker_loss: Literal["retry", "fail"] = "retry"
    max_losses: int | None = None
    batch: int | None = None

    @property
    def retries(self) -> int:
        """How many retries a failure may be followed by."""
        return self.max_retries if self.retry is None else self.retry.max_retries


@dataclass(frozen=True, slots=True)
class MapSpec:
    """What makes a group of a task: one member for each item of a value that is known at run time only.

    Attributes:
        over: the node whose result, or the channel key whose value, holds the items.
        max_parallel: how many members run at the same time; None for all.
    """

    over: str
    max_parallel: int | None = None


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose added tasks a group holds: the activation ``node`` of graph ``graph``, done at ``attempt`` when they are.

    ``fatal``: whether the failure of one ends the run, as it does where the owner stands outside of every group.
    ``leaves``: what the graph has after the owner is not reached from it.
    """

    node: str
    attempt: int
    graph: str = ""
    fatal: bool = True
    leaves: bool = False


@quick
@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node of a plan: a task, or a parallel group with a barrier after it.

    Attributes:
        successors: nodes that may start when this one is done.
        loops: successors by an edge that closes a cycle: they are entered anew, and never wait for this node.
        needs: predecessors whose end the node waits for.
        group: the group that the node runs in, if any.
        exit_index: which member of ``group`` the node's end completes; -1 if none.
        entries: of a group: the nodes that start when it opens.
        exits: of a group: the nodes whose ends the barrier waits for.
        timeout: of a group: seconds after which its barrier closes with what has ended by then.
        batch: of a group: how many of its members travel in one message; None for what the settings say.
        map: of a mapped task: where its items come from. ``options`` are those of each member.
        owner: of a group of tasks that were added while the run went on: who added them.
    """

    id: str
    successors: tuple[str, ...] = ()
    loops: tuple[str, ...] = ()
    needs: int = 0
    group: str | None = None
    exit_index: int = -1
    entries: tuple[str, ...] = ()
    exits: tuple[str, ...] = ()
    timeout: float | None = None
    batch: int | None = None
    map: MapSpec | None = None
    owner: Owner | None = None
    policy: GroupPolicy = field(default_factory=StrictGroupPolicy)
    options: TaskOptions = field(default_factory=TaskOptions)

    @property
    def is_group(self) -> bool:
        return bool(self.entries) or self.map is not None

    @property
    def is_exit(self) -> bool:
        return self.exit_index >= 0


class _Passes:
    """The nodes of one graph by number, and how many ends each waits for in a pass that was entered at one of them."""

    def __init__(self, nodes: Mapping[str, NodeSpec]) -> None:
        self._nodes = nodes
        self._needs: dict[int, dict[str, int]] = {}

    @cached_property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._nodes)

    @cached_property
    def numbers(self) -> dict[str, int]:
        return {node: number for number, node in enumerate(self.ids)}

    def needs(self, entry: int) -> dict[str, int]:
        """Worked out once for each entry: it looks at everything that can be reached from there."""
        if entry not in self._needs:
            self._needs[entry] = self._count(self.ids[entry])
        return self._needs[entry]

    def _count(self, start: str) -> dict[str, int]:
        needs: dict[str, int] = {}
        seen = {start}
        stack = [start]
        while stack:
            for successor in self._nodes[stack.pop()].successors:
                needs[successor] = needs.get(successor, 0) + 1
                if successor not in seen:
                    seen.add(successor)
                    stack.append(successor)
        return needs


@dataclass(frozen=True)
class Plan:
    """A workflow as the Scheduler sees it: the nodes that can be reached from ``start``.

    Attributes:
        graph: the graph that holds the tasks which one attempt added; empty for the workflow as written.
        homes: the graphs that hold the nodes which were added while the run went on, by node.
        scheduling: which of the nodes that are ready at the same time goes first.
        first: the number of the attempt with which a node begins: 1, and a higher one after each retry of the run.
        passes: what was worked out about the passes of each graph; shared with the plans that extend this one.
    """

    name: str
    start: str
    nodes: Mapping[str, NodeSpec]
    graph: str = ""
    homes: Mapping[str, str] = field(default_factory=dict)
    scheduling: SchedulingPolicy = field(default_factory=FifoPolicy)
    first: int = 1
    passes: dict[str, _Passes] = field(default_factory=dict, compare=False, repr=False)

    def __getitem__(self, key: str) -> NodeSpec:
        """The node of an id or an activation key; a member of a mapped task has the task's options and its own id."""
        found = self.nodes.get(key)  # most keys are ids, and no id ends like the name of a pass
        if found is not None:
            return found
        node = split(key)[0]
        found = self.nodes.get(node)
        if found is not None:
            return found
        item = item_of(node)
        mapped = self.nodes.get(item[0]) if item is not None else None
        if item is None or mapped is None or mapped.map is None:
            raise UnknownNodeError(node, tuple(self.nodes))
        return NodeSpec(id=node, needs=1, group=mapped.id, exit_index=item[1], options=mapped.options)

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        try:
            self[key]
        except UnknownNodeError:
            return False
        return True

    @property
    def own(self) -> Mapping[str, NodeSpec]:
        """The nodes that ``graph`` holds, without those of the graph that it adds them to."""
        return self.nodes.maps[0] if isinstance(self.nodes, ChainMap) else self.nodes

    @property
    def sinks(self) -> tuple[str, ...]:
        """Nodes outside of groups after which nothing follows."""
        return tuple(
            node.id
            for node in self.nodes.values()
            if not node.successors and not node.loops and node.group is None and node.owner is None
        )

    @property
    def task_ids(self) -> tuple[str, ...]:
        return tuple(node.id for node in self.nodes.values() if not node.is_group)

    def queues(self, default: str) -> tuple[str, ...]:
        """The queues that workers must consume for this plan to finish, sorted."""
        return tuple(sorted({node.options.queue or default for node in self.nodes.values()}))

    def graph_of(self, node: str) -> str:
        """The graph that a node belongs to: empty for the workflow as written."""
        if not self.homes:
            return ""
        item = item_of(node)
        home = item[0] if item is not None and node not in self.nodes else node
        return self.homes.get(home, "")

    def enclosing(self, node: str) -> tuple[str, ...]:
        """The groups around a node, the innermost first."""
        around: list[str] = []
        group = self[node].group
        while group is not None:
            around.append(group)
            group = self.nodes[group].group
        return tuple(around)

    def number(self, node: str) -> int:
        """The node's place in its graph, which names the passes that are entered there."""
        return self._passes_of(self.graph_of(node)).numbers[node]

    def needs(self, node: str, entry: int | None) -> int:
        """How many ends the node waits for in a pass that was entered at node number ``entry``."""
        if entry is None:
            return self[node].needs
        return self._passes_of(self.graph_of(node)).needs(entry).get(node, 0)

    def extended(self, graph: str, nodes: Mapping[str, NodeSpec]) -> Plan:
        """The plan with nodes that were added while the run went on, which ``graph`` holds."""
        maps = self.nodes.maps if isinstance(self.nodes, ChainMap) else [self.nodes]
        homes = {**self.homes, **dict.fromkeys(nodes, graph)}
        passes = {**self.passes, "": self._passes_of(""), graph: _Passes(nodes)}
        return replace(self, nodes=ChainMap(dict(nodes), *maps), graph=graph, homes=homes, passes=passes)

    def _passes_of(self, graph: str) -> _Passes:
        if graph not in self.passes:
            self.passes[graph] = _Passes(self.nodes)
        return self.passes[graph]
