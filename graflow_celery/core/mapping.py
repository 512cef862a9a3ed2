"""A task mapped over a value: a parallel group whose size is known at run time only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from graflow_celery.core.expr import Executable, checked_batch, checked_timeout
from graflow_celery.core.plan import MapSpec
from graflow_celery.core.policy import GroupPolicy, as_policy
from graflow_celery.errors import DuplicateTaskError, GraphCompilationError

if TYPE_CHECKING:
    from graflow_celery.core.graph import TaskGraph
    from graflow_celery.core.task import TaskWrapper


class MappedTask(Executable):
    """``a_task.map()``: one member for each item of a value, each a node ``name[index]``, and a barrier after them.

    Its result is the list of the members' results in the items' order; with a tolerant policy, of those that succeeded.

    Args:
        template: the task that runs for each item; its first parameter that was not bound receives the item.
        over: the task whose result, or the channel key whose value, holds the items; by default the only predecessor.
        name: the node's id; the task's own by default, so that a parameter of that name receives the list.
        max_parallel: how many members run at the same time.

    Raises:
        GraphCompilationError: no parameter is left for the item, or a value is out of range.
    """

    def __init__(
        self,
        template: TaskWrapper,
        over: str | Executable | None = None,
        *,
        name: str | None = None,
        max_parallel: int | None = None,
    ) -> None:
        self.template = template
        self.over = over.task_id if isinstance(over, Executable) else over
        self._task_id = name or template.task_id
        if max_parallel is not None and (not isinstance(max_parallel, int) or max_parallel < 1):
            raise GraphCompilationError(
                f"Task '{template.task_id}': map(max_parallel={max_parallel!r}) must be 1 or more."
            )
        self.max_parallel = max_parallel
        self.policy: GroupPolicy = as_policy("strict")
        self.timeout: float | None = None
        self.batch: int | None = None
        free = [parameter.name for parameter in template.parameters if parameter.name not in template.bound]
        if not free:
            raise GraphCompilationError(f"Task '{template.task_id}': map() needs a parameter that receives the item.")
        self.item = free[0]
        self._attach()

    @property
    def task_id(self) -> str:
        return self._task_id

    def with_execution(
        self,
        backend: str | None = None,
        backend_config: Mapping[str, Any] | None = None,
        policy: str | GroupPolicy | None = None,
        timeout: float | None = None,
        batch: int | None = None,
    ) -> Self:
        """As :meth:`ParallelGroup.with_execution`. Returns the mapped task itself."""
        if policy is not None:
            self.policy = as_policy(policy)
        if timeout is not None:
            self.timeout = checked_timeout(timeout, self.task_id)
        if batch is not None:
            self.batch = checked_batch(batch, self.task_id)
        return self

    def _registering(self, graph: TaskGraph) -> Iterator[Executable]:
        self._put(graph)
        return iter(())

    def _put(self, graph: TaskGraph) -> None:
        present = graph.nodes.get(self.task_id)
        if present is self:
            return
        if present is self.template and not graph.successors(self.task_id) and not graph.predecessors(self.task_id):
            graph.remove_node(self.task_id)
        elif present is not None:
            raise DuplicateTaskError(self.task_id)
        if self.template.task_id != self.task_id and graph.nodes.get(self.template.task_id) is self.template:
            graph.mark_template(self.template.task_id)
        graph.add_node(self)

    def spec(self, predecessors: list[str]) -> MapSpec:
        """Where the items come from. Raises GraphCompilationError if that is not clear."""
        over = self.over
        if over is None and len(predecessors) != 1:
            raise GraphCompilationError(
                f"Mapped task '{self.task_id}' has {len(predecessors)} predecessors: say whose result it takes, "
                f"{self.template.task_id}.map(over=...), or a channel key."
            )
        return MapSpec(over if over is not None else predecessors[0], self.max_parallel)

    def __repr__(self) -> str:
        return f"MappedTask({self.task_id})"
