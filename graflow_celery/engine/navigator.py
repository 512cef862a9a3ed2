"""GraphNavigator: where a task's code sends the run next. It notes what was asked; the Scheduler decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from graflow_celery.core.events import (
    Event,
    NodeIterated,
    NodeSucceeded,
    RunCancelledByNode,
    RunTerminated,
)
from graflow_celery.core.expr import Executable
from graflow_celery.core.place import Place
from graflow_celery.core.plan import MAX_CYCLES, Plan
from graflow_celery.errors import CycleLimitExceededError, GraflowRuntimeError
from graflow_celery.ports import NOTHING


@dataclass
class GraphNavigator:
    """Stands at one attempt of a task.

    Attributes:
        plan, node, attempt: the attempt's plan, activation key and number.
        cycle: how often the node ran before in this run.
        added: tasks that are new to the run; ``goto``: nodes it jumps to; ``leaves``: its successors are skipped.
        iteration: what the next iteration receives, if one was asked for.
        terminated, cancelled: the message with which the run is to end.
    """

    plan: Plan
    node: str
    attempt: int = 1
    cycle: int = 0
    added: list[Executable] = field(default_factory=list)
    goto: list[str] = field(default_factory=list)
    leaves: bool = False
    iteration: Any = NOTHING
    terminated: str | None = None
    cancelled: str | None = None

    @property
    def place(self) -> Place:
        return Place.of(self.plan, self.node)

    @property
    def successors(self) -> tuple[str, ...]:
        """The ids of the nodes that the graph has after this one, those behind a closing edge included."""
        spec = self.place.spec
        return spec.successors + spec.loops

    @property
    def predecessors(self) -> tuple[str, ...]:
        here = self.place.spec.id
        return tuple(node.id for node in self.plan.nodes.values() if here in node.successors or here in node.loops)

    def next_task(self, executable: Executable | str, goto: bool = False) -> str:
        """Runs a task next. A new one runs before the successors of this one; with ``goto`` in their place.

        One that the graph has is jumped to: the successors of this task are skipped.

        Returns: the id of the task.

        Raises:
            GraflowRuntimeError: the jump leads into a parallel group, or to another member of this one; or an iteration
                was asked for as well.
        """
        self._check_alone("next_task", self.iteration is not NOTHING)
        node = executable if isinstance(executable, str) else executable.task_id
        if node in self.plan.nodes:
            self._check_jump(node)
            if node not in self.goto:
                self.goto.append(node)
            return node
        if isinstance(executable, str):
            known = ", ".join(list(self.plan.nodes)[:8])
            raise GraflowRuntimeError(f"next_task('{node}'): the workflow has no such task. It has: {known}.")
        self.added.append(executable)
        self.leaves = self.leaves or goto
        return node

    def next_iteration(self, data: Any = None) -> str:
        """Runs this task once more; its first parameter that was not bound receives ``data``, unless that is None.

        Its successors wait until it asks for no further iteration.

        Raises:
            CycleLimitExceededError: it ran as often as ``@task(max_cycles=...)`` allows, 10 times by default.
            GraflowRuntimeError: ``next_task`` was called as well.
        """
        self._check_alone("next_iteration", bool(self.added or self.goto))
        if self.cycle + 1 >= self.max_cycles:
            raise CycleLimitExceededError(self.place.spec.id, self.cycle + 1, self.max_cycles)
        self.iteration = data
        return self.place.spec.id

    @property
    def max_cycles(self) -> int:
        return self.place.spec.options.max_cycles or MAX_CYCLES

    def terminate_workflow(self, message: str) -> None:
        """Ends the run as done when this task has ended, with this task's result."""
        self.terminated = message

    def cancel_workflow(self, message: str) -> None:
        """Ends the run as cancelled when this task has ended."""
        self.cancelled = message

    def event(self, added: str | None = None) -> Event:
        """What the end of the attempt means. ``added``: the group that the new tasks were put in."""
        if self.cancelled is not None:
            return RunCancelledByNode(self.node, self.attempt, self.cancelled)
        if self.terminated is not None:
            return RunTerminated(self.node, self.attempt, self.terminated)
        if self.iteration is not NOTHING:
            return NodeIterated(self.node, self.attempt)
        return NodeSucceeded(self.node, self.attempt, tuple(self.goto), added, self.leaves and added is None)

    @property
    def adds(self) -> bool:
        """Whether new tasks are to run before the attempt's node is done."""
        return bool(self.added) and self.cancelled is None and self.terminated is None

    def _check_alone(self, asked: str, other: bool) -> None:
        if other:
            raise GraflowRuntimeError(
                f"{asked}() of task '{self.place.spec.id}': a task either goes on to a next task or iterates, not both."
            )

    def _check_jump(self, target: str) -> None:
        here, there = self.place, self.plan[target]
        around = self.plan.enclosing(here.spec.id)
        if there.group is not None and there.group not in around:
            raise GraflowRuntimeError(
                f"Task '{here.spec.id}' cannot jump to '{target}', which is inside of parallel group '{there.group}'. "
                f"Jump to the group."
            )
        beside = there.group is not None and there.group == here.spec.group
        if beside and here.last.spec.id != here.beside(target).last.spec.id:
            raise GraflowRuntimeError(
                f"Task '{here.spec.id}' cannot jump to '{target}', another member of its parallel group "
                f"'{there.group}': members run side by side."
            )
