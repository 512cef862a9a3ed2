"""A run in memory, fed with events: what the transcripts of the Scheduler are written with."""

from __future__ import annotations

from collections.abc import Sequence

from graflow_celery.core.activation import node_of
from graflow_celery.core.commands import Command
from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.events import (
    Event,
    FeedbackRequested,
    NodeIterated,
    NodeSucceeded,
    RunCancelledByNode,
    RunStarted,
    RunTerminated,
)
from graflow_celery.core.expr import Executable
from graflow_celery.core.extend import extend
from graflow_celery.core.lower import lower
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.core.scheduler import Scheduler
from graflow_celery.core.state import Applied, Leave, NodeState, RunState
from graflow_celery.core.task import TaskWrapper, task
from tests.property.laws import check_step

#: What only code that runs can bring about.
OUTCOMES = NodeSucceeded | NodeIterated | FeedbackRequested | RunTerminated | RunCancelledByNode


class Transcript:
    """Checks what must always hold after every step."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.state = RunState()

    @classmethod
    def started(cls, plan: Plan) -> Transcript:
        run = cls(plan)
        run.feed(RunStarted())
        return run

    def feed(self, event: Event) -> list[Command]:
        return [emission.command for emission in self.apply(event).emissions]

    def apply(self, event: Event) -> Applied:
        """An outcome needs an attempt: it begins, if it has not and may."""
        if isinstance(event, OUTCOMES):
            self.begin(event.node, event.attempt)
        transition = Scheduler().decide(self.plan, event)
        before = self.state.copy()
        applied = self.state.apply(transition)
        assert not applied.stale or before == self.state
        check_step(self.plan.nodes, before, self.state, None if applied.stale else transition)
        return applied

    def begin(self, node: str, attempt: int, worker: str = "w") -> Leave | None:
        place = Place.of(self.plan, node)
        before = self.state.copy()
        leave = self.state.begin(node, attempt, worker, place.scopes, place.graph)
        check_step(self.plan.nodes, before, self.state)
        return leave

    def succeed(self, *nodes: str) -> list[Command]:
        return [command for node in nodes for command in self.feed(NodeSucceeded(node, 1))]

    def jump(self, node: str, *targets: str, attempt: int = 1) -> list[Command]:
        return self.feed(NodeSucceeded(node, attempt, targets))

    def add(
        self, node: str, *added: Executable, goto: tuple[str, ...] = (), leaves: bool = False, attempt: int = 1
    ) -> tuple[str, list[Command]]:
        """The node ends by adding tasks; the key of the group that holds them, and what follows."""
        extension = extend(Place.of(self.plan, node), attempt, added, leaves)
        self.plan = self.plan.extended(extension.key, extension.plan.nodes)
        return extension.key, self.feed(NodeSucceeded(node, attempt, goto, extension.key))

    def inside(self, group: str, node: str) -> str:
        """The key of a node in a group."""
        return Place.of(self.plan, group).inside(node).key

    def states(self, node: str) -> list[NodeState]:
        """How each activation of a node stands, in the order in which they were known first."""
        return [record.state for key, record in self.state.nodes.items() if node_of(key) == node]


def new(name: str, **options: object) -> TaskWrapper:
    def body(item: object = None) -> None: ...

    return task(name, **options)(body)  # type: ignore[call-overload,no-any-return]


def tasks(names: Sequence[str], **options: object) -> list[Executable]:
    return [new(name, **options) for name in names]


def plan_of(definition: WorkflowDefinition, start: str | None = None) -> Plan:
    return lower(definition.graph, definition.name, start)
