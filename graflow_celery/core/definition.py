"""The workflow that is being written: where ``>>``, ``|`` and ``@task`` inside ``with workflow(...)`` register."""

from __future__ import annotations

import contextvars
from types import TracebackType
from typing import Self

from graflow_celery.core.graph import Node, TaskGraph

_current: contextvars.ContextVar[WorkflowDefinition | None] = contextvars.ContextVar("current_workflow", default=None)


class WorkflowDefinition:
    """A name and a graph. As a context manager it is the one that expressions register with."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.graph = TaskGraph()
        self._tokens: list[contextvars.Token[WorkflowDefinition | None]] = []

    def __enter__(self) -> Self:
        self._tokens.append(_current.set(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _current.reset(self._tokens.pop())

    def add(self, node: Node) -> None:
        """Registers a task, chain or group that was written outside of the ``with`` block, with its edges."""
        node.register(self.graph)


def current_definition() -> WorkflowDefinition | None:
    """The workflow whose ``with`` block is being executed, if any."""
    return _current.get()
