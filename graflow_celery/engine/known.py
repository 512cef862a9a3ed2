"""What is the same of a node in every run of its graph, worked out once in a process."""

from __future__ import annotations

from dataclasses import dataclass, field

from graflow_celery.core.events import NodeSucceeded
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.core.scheduler import Scheduler
from graflow_celery.core.state import Transition

#: Nodes that are kept; when there are more, all are worked out anew.
MOST = 20_000


@dataclass(slots=True)
class Known:
    """An attempt of a node.

    ``forms``: where a store may keep the forms that it gives to questions about it.
    """

    place: Place
    kind: str
    forms: dict[object, str] = field(default_factory=dict)
    success: Transition | None = None

    def succeeded(self, scheduler: Scheduler, plan: Plan, event: NodeSucceeded) -> Transition:
        """What follows from its plain success: nothing was added, no jump."""
        if self.success is None:
            self.success = scheduler.decide(plan, event)
        return self.success


class Knowledge:
    """Of one process. Its threads may work something out twice."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str, int], Known] = {}
        #: The kinds of which code was loaded here before, so that loading it does no harm.
        self.loaded: set[str] = set()

    def find(self, graph: str, plan: Plan, node: str, number: int) -> Known | None:
        """``graph``: the version of the run's graph."""
        return self._known.get((graph, plan.graph, node, number))

    def keep(self, graph: str, plan: Plan, node: str, number: int, known: Known) -> None:
        if len(self._known) >= MOST:
            self._known.clear()
            self.loaded.clear()
        self._known[graph, plan.graph, node, number] = known
