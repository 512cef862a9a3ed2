"""The lowered graph: what the Scheduler reads. Frozen values that hold no functions, so that they travel as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from graflow_celery.core.policy import GroupPolicy, StrictGroupPolicy
from graflow_celery.errors import UnknownNodeError


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """How a node is dispatched and what happens when it goes wrong. Times are in seconds."""

    queue: str | None = None
    priority: int | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    max_retries: int = 0
    on_worker_loss: Literal["retry", "fail"] = "retry"
    max_losses: int | None = None


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One node of a plan: a task, or a parallel group with a barrier after it.

    Attributes:
        successors: nodes that may start when this one is done.
        needs: predecessors whose end the node waits for.
        group: the group that the node runs in, if any.
        exit_index: which member of ``group`` the node's end completes; -1 if none.
        entries: of a group: the nodes that start when it opens.
        exits: of a group: the nodes whose ends the barrier waits for.
        weight: how many tasks start when the node does.
    """

    id: str
    successors: tuple[str, ...] = ()
    needs: int = 0
    group: str | None = None
    exit_index: int = -1
    entries: tuple[str, ...] = ()
    exits: tuple[str, ...] = ()
    weight: int = 1
    policy: GroupPolicy = field(default_factory=StrictGroupPolicy)
    options: TaskOptions = field(default_factory=TaskOptions)

    @property
    def is_group(self) -> bool:
        return bool(self.entries)

    @property
    def is_exit(self) -> bool:
        return self.exit_index >= 0


@dataclass(frozen=True)
class Plan:
    """A workflow as the Scheduler sees it: the nodes that can be reached from ``start``."""

    name: str
    start: str
    nodes: Mapping[str, NodeSpec]

    def __getitem__(self, node_id: str) -> NodeSpec:
        try:
            return self.nodes[node_id]
        except KeyError:
            raise UnknownNodeError(node_id, tuple(self.nodes)) from None

    @property
    def sinks(self) -> tuple[str, ...]:
        """Nodes outside of groups after which nothing follows."""
        return tuple(node.id for node in self.nodes.values() if not node.successors and node.group is None)

    @property
    def task_ids(self) -> tuple[str, ...]:
        return tuple(node.id for node in self.nodes.values() if not node.is_group)

    def queues(self, default: str) -> tuple[str, ...]:
        """The queues that workers must consume for this plan to finish, sorted."""
        return tuple(sorted({node.options.queue or default for node in self.nodes.values()}))
