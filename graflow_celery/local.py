"""Runs a workflow here, in threads: the core and the engine on the ports in memory."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor as Pool
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from graflow_celery.core.activation import item_of, node_of
from graflow_celery.core.commands import Command
from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.events import CancelRequested, RunStarted
from graflow_celery.core.extend import Extension
from graflow_celery.core.lower import lower
from graflow_celery.core.mapping import MappedTask
from graflow_celery.core.plan import Plan
from graflow_celery.core.policy import SchedulingPolicy
from graflow_celery.core.scheduler import Scheduler
from graflow_celery.core.state import RunState, RunStatus
from graflow_celery.core.task import TaskWrapper
from graflow_celery.engine.context import ExecutionContext, last_result
from graflow_celery.engine.llm import LLMRegistry
from graflow_celery.engine.node import Host, NodeCode, run_attempt
from graflow_celery.engine.runner import Engine
from graflow_celery.errors import GraflowWorkflowCanceledError, RunFailedError, RunStateError, RunTimeoutError
from graflow_celery.memory_backend.channel import MemoryChannel
from graflow_celery.memory_backend.executor import ThreadExecutor
from graflow_celery.memory_backend.run_store import MemoryRunStore
from graflow_celery.memory_backend.timers import Timers
from graflow_celery.ports import Attempt, CoroutineRunner, EventRecord, RunRef, Snapshot

Observer = Callable[[EventRecord], None]
MAX_STEPS = 10_000

_TIMERS = Timers(time.monotonic)

logger = logging.getLogger(__name__)


def default_threads() -> int:
    """As many threads as the standard library's own pool would take."""
    return min(32, (os.cpu_count() or 1) + 4)


class LocalRun:
    """One run in this process. ``execute`` blocks until it has ended; ``start``, ``close``, ``result`` are its steps.

    Args:
        start_node, initial_channel, max_steps: see `WorkflowContext.execute`.
        observer: called with each event while it happens.
        policy: which of the nodes that are ready goes first.
        threads: how many nodes run at the same time.
        pool: whose threads they run in; one of its own by default.
        run_coroutine: runs the coroutine of an ``async def`` task.
        llm: the clients and agents of the workflow.
    """

    def __init__(
        self,
        definition: WorkflowDefinition,
        *,
        start_node: str | None = None,
        initial_channel: Mapping[str, Any] | None = None,
        max_steps: int = MAX_STEPS,
        observer: Observer | None = None,
        policy: SchedulingPolicy | None = None,
        threads: int | None = None,
        pool: Pool | None = None,
        run_coroutine: CoroutineRunner | None = None,
        llm: LLMRegistry | None = None,
    ) -> None:
        self.plan = lower(definition.graph, definition.name, start_node)
        self.run = RunRef(uuid.uuid4().hex[:16], graph="")
        self.channel = MemoryChannel(initial_channel)
        self.store = MemoryRunStore(self.channel, time.time, observer, RunState(max_steps=max_steps))
        self.definition = definition
        self.tasks: dict[str, Any] = dict(definition.graph.nodes)
        self._plans: dict[str, Plan] = {"": self.plan}
        self._codes: dict[str, NodeCode] = {}
        self._own_pool = pool is None
        count = threads or default_threads()
        self._pool = pool or ThreadPoolExecutor(max_workers=count, thread_name_prefix="graflow")
        scheduler = Scheduler(policy)
        self._executor = ThreadExecutor(self, self._pool, count, _TIMERS, scheduler.policy.rank)
        self._executor.crashed = self.store.tell_end
        self.engine = Engine(self.store, self._executor, self, scheduler)
        self.context = ExecutionContext(self.run, self.plan, self.store, self.channel, llm=llm)
        self._run_coroutine = run_coroutine or asyncio.run

    def execute(self, timeout: float | None = None) -> Any:
        """Runs to the end and returns the last result.

        Raises:
            RunTimeoutError: ``timeout`` seconds went by; nothing new is started, and what runs is waited for.
            Exception: what the failed task raised.
        """
        try:
            self.start()
            if not self.store.ended.wait(timeout):
                self.cancel(f"it did not end within {timeout:g} s")
                raise RunTimeoutError(self.run.id, timeout or 0.0, "Give it more time: timeout=...")
        except KeyboardInterrupt:
            self.cancel("interrupted")
            raise
        finally:
            self.close()
        return self.result()

    def start(self) -> None:
        """Starts the run and returns. Whoever starts it has to ``close`` it."""
        self.engine.deliver(self.run, self.plan, RunStarted())

    def resume(self, snapshot: Snapshot, commands: Sequence[Command]) -> None:
        """Goes on from what a run had come to. Returns at once, as ``start`` does."""
        self.store.restore(self.run, snapshot)
        for key, value in snapshot.channel.items():
            self.channel.set(key, value)
        self.engine.carry_out(self.run, self.plan, commands)

    def when_ended(self, call: Callable[[], None]) -> None:
        """Has ``call`` called, from any thread, when the run has ended; at once if it has."""
        self.store.when_ended(call)

    def cancel(self, reason: str) -> None:
        """Ends the run: nothing of it starts any more."""
        self.engine.end(self.run, CancelRequested(reason))

    def close(self) -> None:
        """Waits for what still runs, and gives the threads back."""
        self._executor.close()
        if self._own_pool:
            self._pool.shutdown(wait=True)

    def result(self) -> Any:
        """The last result of a run that has ended; None if it waits for a person.

        Raises:
            Exception: what the failed task raised.
            GraflowWorkflowCanceledError: it was cancelled.
        """
        if self._executor.crash is not None:
            raise self._executor.crash
        state = self.store.state
        if state.status is RunStatus.WAITING:
            logger.warning("run %s waits for a person: %s", self.run.id, ", ".join(self.unanswered()))
            return None
        if state.status in (RunStatus.SUCCEEDED, RunStatus.TERMINATED):
            if state.status is RunStatus.TERMINATED and state.failed_node is None:
                logger.warning("run %s was ended early: %s", self.run.id, state.reason)
            return last_result(self.context, state.status, state.last_node)
        failed = state.failed_node
        error = None if failed is None else self.store.error(self.run, node_of(failed))
        if state.status is RunStatus.CANCELLED:
            raise error or GraflowWorkflowCanceledError(state.reason)
        raise error or RunFailedError(self.run.id, state.reason)

    def unanswered(self) -> list[str]:
        """The ids of what its tasks asked and nobody answered."""
        return [record.id for record in self.store.feedback(self.run) if record.response is None]

    # What the executor calls.

    def run_attempt(self, run: RunRef, plan: Plan, node: str, attempt: int) -> None:
        host = Host(
            context=self.context,
            load=functools.partial(self._code, node_of(node)),
            run_coroutine=self._run_coroutine,
            clock=time.perf_counter,
            random=random.random,
        )
        run_attempt(self.engine, Attempt(run, plan, node, attempt, "local"), host)

    def close_barrier(self, run: RunRef, plan: Plan, group: str) -> None:
        self.engine.close_barrier(run, plan, group)

    def carry_out(self, run: RunRef, plan: Plan, commands: Sequence[Command]) -> None:
        """A command whose time has come; but not one that was answered before."""
        due = [command for command in commands if command in self.store.state.outbox]
        self.engine.carry_out(run, plan, due)

    # Where the engine keeps graphs.

    def plan_for(self, run: RunRef, graph: str) -> Plan:
        return self._plans[graph]

    def add(self, run: RunRef, plan: Plan, extension: Extension) -> Plan:
        graph = extension.key
        self.tasks |= extension.tasks
        for node in extension.tasks:
            self._codes.pop(node, None)
        self._plans[graph] = self.plan.extended(graph, extension.plan.nodes)
        return plan.extended(graph, extension.plan.nodes)

    def _code(self, node: str) -> NodeCode:
        if node not in self._codes:
            found = self.tasks.get(node)
            item = item_of(node)
            if found is None and item is not None:
                return self._code(item[0])
            wrapper = found.template if isinstance(found, MappedTask) else found
            self._codes[node] = NodeCode.of(wrapper) if isinstance(wrapper, TaskWrapper) else NodeCode(_point)
        return self._codes[node]


def _no_coroutines(coroutine: Any) -> Any:
    coroutine.close()
    raise RunStateError("Nothing here runs coroutines.")


def _point() -> None:
    """What a task without a function does."""
