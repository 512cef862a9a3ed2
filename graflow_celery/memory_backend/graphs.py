"""The graphs of a run in this process: plans, expressions and functions as they were written. Nothing is packed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from graflow_celery.core.activation import item_of
from graflow_celery.core.expr import Executable
from graflow_celery.core.extend import Extension
from graflow_celery.core.mapping import MappedTask
from graflow_celery.core.plan import Plan
from graflow_celery.core.task import TaskWrapper
from graflow_celery.engine.node import NodeCode
from graflow_celery.engine.written import WrittenGraph
from graflow_celery.ports import RunRef

if TYPE_CHECKING:
    from graflow_celery.engine.stored import StoredGraphs


class LocalGraphs:
    """See :class:`graflow_celery.ports.Graphs`. Holds the graphs of one run.

    Args:
        plan: of the workflow as written, or as it came from elsewhere.
        tasks: its expressions by node id; None if they came from elsewhere.
        stored: graphs that came from elsewhere, with their functions.
    """

    def __init__(
        self, plan: Plan, tasks: Mapping[str, Executable] | None = None, stored: StoredGraphs | None = None
    ) -> None:
        self.plan = plan
        self.stored = stored
        self.written: dict[str, WrittenGraph] = {} if tasks is None else {"": WrittenGraph(plan, tasks)}
        self._plans: dict[str, Plan] = {"": plan}
        self._codes: dict[tuple[str, str], NodeCode] = {}

    def plan_for(self, run: RunRef, graph: str) -> Plan:
        if graph not in self._plans and self.stored is not None:
            self._plans[graph] = self.stored.plan(graph)
        return self._plans[graph]

    def add(self, run: RunRef, plan: Plan, extension: Extension) -> Plan:
        graph, nodes = extension.key, extension.plan.nodes
        self.written[graph] = WrittenGraph(extension.plan, extension.tasks)
        self._plans[graph] = self.plan.extended(graph, nodes)
        return plan.extended(graph, nodes)

    def code(self, graph: str, node: str) -> NodeCode:
        """The function of a node of the workflow as written (``""``) or of added tasks.

        Raises CodeNotFoundError or BlobRejectedError where it came from elsewhere and cannot be loaded here.
        """
        key = (graph, node)
        found = self._codes.get(key)
        if found is None:
            item = item_of(node)
            found = self._codes[key] = self._load(graph, node, item[0] if item is not None else node)
        return found

    def _load(self, graph: str, node: str, mapped: str) -> NodeCode:
        written = self.written.get(graph)
        if written is None:
            return NodeCode(_point) if self.stored is None else self.stored.code(graph, node)
        found = written.tasks.get(node) or written.tasks.get(mapped)
        wrapper = found.template if isinstance(found, MappedTask) else found
        return NodeCode.of(wrapper) if isinstance(wrapper, TaskWrapper) else NodeCode(_point)


def _point() -> None:
    """What a task without a function does."""
