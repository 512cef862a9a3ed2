"""Runs a workflow here, in threads: the core and the engine on the ports in memory."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.events import CancelRequested, RunStarted
from graflow_celery.core.lower import lower
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import RunStatus
from graflow_celery.core.task import TaskWrapper
from graflow_celery.engine.context import ExecutionContext
from graflow_celery.engine.node import NodeCode, run_attempt
from graflow_celery.engine.runner import Engine
from graflow_celery.errors import GraflowWorkflowCanceledError, RunFailedError, RunTimeoutError
from graflow_celery.memory_backend.channel import MemoryChannel
from graflow_celery.memory_backend.executor import ThreadExecutor
from graflow_celery.memory_backend.run_store import MemoryRunStore
from graflow_celery.ports import Attempt, EventRecord, RunRef

Observer = Callable[[EventRecord], None]


def default_threads() -> int:
    """As many threads as the standard library's own pool would take."""
    return min(32, (os.cpu_count() or 1) + 4)


class LocalRun:
    """One run in this process. ``execute`` blocks until it has ended."""

    def __init__(
        self,
        definition: WorkflowDefinition,
        *,
        start_node: str | None = None,
        initial_channel: Mapping[str, Any] | None = None,
        observer: Observer | None = None,
        threads: int | None = None,
    ) -> None:
        self.plan = lower(definition.graph, definition.name, start_node)
        self.run = RunRef(uuid.uuid4().hex[:16], graph="")
        self.channel = MemoryChannel(initial_channel)
        self.store = MemoryRunStore(self.channel, time.time, observer)
        self._definition = definition
        self._codes: dict[str, NodeCode] = {}
        self._executor = ThreadExecutor(self, threads or default_threads())
        self._executor.crashed = self.store.ended.set
        self._engine = Engine(self.store, self._executor)

    @property
    def context(self) -> ExecutionContext:
        return ExecutionContext(self.run, self.plan, self.store, self.channel)

    def execute(self, timeout: float | None = None) -> Any:
        """Runs to the end and returns the last result.

        Raises:
            RunTimeoutError: ``timeout`` seconds went by; nothing new is started, and what runs is waited for.
            Exception: what the failed task raised.
        """
        try:
            self._engine.deliver(self.run, self.plan, RunStarted())
            if not self.store.ended.wait(timeout):
                self._cancel(f"it did not end within {timeout:g} s")
                raise RunTimeoutError(self.run.id, timeout or 0.0, "Give it more time: timeout=...")
        except KeyboardInterrupt:
            self._cancel("interrupted")
            raise
        finally:
            self._executor.close()
        return self._result()

    def run_attempt(self, run: RunRef, plan: Plan, node: str, attempt: int) -> None:
        run_attempt(
            self._engine,
            self.channel,
            Attempt(run, plan, node, attempt, "local"),
            lambda: self._code(node),
            max_losses=0,
        )

    def close_barrier(self, run: RunRef, plan: Plan, group: str) -> None:
        self._engine.close_barrier(run, plan, group)

    def _code(self, node: str) -> NodeCode:
        if node not in self._codes:
            wrapper = self._definition.graph.get_node(node)
            self._codes[node] = NodeCode.of(wrapper) if isinstance(wrapper, TaskWrapper) else NodeCode(_point)
        return self._codes[node]

    def _cancel(self, reason: str) -> None:
        self._engine.deliver(self.run, self.plan, CancelRequested(reason))

    def _result(self) -> Any:
        if self._executor.crash is not None:
            raise self._executor.crash
        state = self.store.state
        if state.status is RunStatus.SUCCEEDED:
            sinks = self.plan.sinks
            last = sinks[0] if len(sinks) == 1 else state.last_node
            return None if last is None else self.context.get_result(last)
        if state.status is RunStatus.CANCELLED:
            raise GraflowWorkflowCanceledError(state.reason)
        failed = state.failed_node
        if failed is not None and failed in self.store.errors:
            raise self.store.errors[failed]
        raise RunFailedError(self.run.id, state.reason)


def _point() -> None:
    """What a task without a function does."""
