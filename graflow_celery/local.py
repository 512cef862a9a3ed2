"""Runs a workflow here, in threads: the core and the engine on the ports in memory."""

from __future__ import annotations

import contextvars
import functools
import importlib
import logging
import os
import random
import sys
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor as Pool
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from graflow_celery.core.activation import node_of
from graflow_celery.core.commands import Command, ExpireGroup
from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.events import CancelRequested, RunStarted
from graflow_celery.core.expr import Executable
from graflow_celery.core.lower import lower
from graflow_celery.core.plan import Plan
from graflow_celery.core.policy import SchedulingPolicy
from graflow_celery.core.scheduler import Scheduler
from graflow_celery.core.state import Applied, Emission, RunState, RunStatus, Transition
from graflow_celery.engine.awaiting import Steps, advance
from graflow_celery.engine.cadence import occasion
from graflow_celery.engine.context import ExecutionContext, last_result
from graflow_celery.engine.feedback import FeedbackRequest, Handler, requests
from graflow_celery.engine.feedback_desk import answer, as_response, consult, find
from graflow_celery.engine.llm import LLMRegistry
from graflow_celery.engine.node import Host, attempt_steps
from graflow_celery.engine.runner import Engine
from graflow_celery.errors import (
    GraflowError,
    GraflowWorkflowCanceledError,
    RunFailedError,
    RunStateError,
    RunTimeoutError,
)
from graflow_celery.logs import Origin, within
from graflow_celery.memory_backend.callers import Callers
from graflow_celery.memory_backend.channel import MemoryChannel
from graflow_celery.memory_backend.executor import ThreadExecutor
from graflow_celery.memory_backend.graphs import LocalGraphs
from graflow_celery.memory_backend.run_store import MemoryRunStore
from graflow_celery.memory_backend.timers import Timers
from graflow_celery.ports import Attempt, EventRecord, FeedbackRecord, RunRef, Snapshot

Observer = Callable[[EventRecord], None]
MAX_STEPS = 10_000

_TIMERS = Timers(time.monotonic)

#: Set where a node of a local run occupies a thread. A run that is executed in there must not wait for threads of the
#: shared pool: if it waited for threads that wait for it, none would ever be free.
inside_node: contextvars.ContextVar[bool] = contextvars.ContextVar("graflow_inside_node", default=False)
#: The runs of this process that have not ended, by id: an answer may come from anywhere in it.
_OPEN: dict[str, LocalRun] = {}

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
        llm: the clients and agents of the workflow.
        feedback: is told what tasks ask of people, and may answer.
        checkpoint_every: a checkpoint is taken whenever so many more nodes have ended; 0 for never.
        checkpoint_to: where checkpoints go that are given no path; see `checkpointing`.
        settings: how they are written; the environment's by default, read when the first of them is.
        tracer: what follows the run; see `tracing`.
    """

    def __init__(
        self,
        definition: WorkflowDefinition | LocalGraphs,
        *,
        start_node: str | None = None,
        initial_channel: Mapping[str, Any] | None = None,
        max_steps: int = MAX_STEPS,
        observer: Observer | None = None,
        policy: SchedulingPolicy | None = None,
        threads: int | None = None,
        pool: Pool | None = None,
        llm: LLMRegistry | None = None,
        feedback: Handler | None = None,
        checkpoint_every: int = 0,
        checkpoint_to: Any = None,
        settings: Any = None,
        tracer: Any = None,
    ) -> None:
        self.graphs = definition if isinstance(definition, LocalGraphs) else _written(definition, start_node)
        self.plan = self.graphs.plan
        self.run = RunRef(uuid.uuid4().hex[:16], graph="")
        self.channel = MemoryChannel(initial_channel)
        self.store = MemoryRunStore(self.channel, time.time, observer, RunState(max_steps=max_steps))
        self._own_pool = pool is None
        count = threads or default_threads()
        self._pool = pool or ThreadPoolExecutor(max_workers=count, thread_name_prefix="graflow")
        scheduler = Scheduler(policy)
        self._executor = ThreadExecutor(self, self._pool, count, _TIMERS, scheduler.rank)
        self._executor.crashed = self.store.tell_end
        self._executor.rested = self._rest
        self._threads = count
        self._feedback = feedback
        self._callers = Callers()
        self._gate = threading.RLock()
        self._closed = False
        self.store.tell_feedback = self._tell_feedback
        self.engine = Engine(self.store, self._executor, self.graphs, scheduler)
        self.engine.committed = self._committed
        if tracer is not None:
            self.engine.tracer = _library("tracing.following").Follower(tracer, self._told, tracer.describe())
        self.llm = llm
        self._every = checkpoint_every
        self._checkpoints = _Checkpoints(self, checkpoint_to, settings)
        self.context = ExecutionContext(
            self.run, self.plan, self.store, self.channel, llm=llm, checkpoints=self._checkpoints, tracer=tracer
        )

    def execute(self, timeout: float | None = None, start: Callable[[], None] | None = None) -> Any:
        """Runs to the end and returns the last result; None if all that is open waits for a person, who is late.

        ``start`` sets the run going where it does not start at its beginning.

        Raises:
            RunTimeoutError: ``timeout`` seconds went by; nothing new is started, and what runs is waited for.
            Exception: what the failed task raised.
        """
        try:
            (start or self.start)()
            if not self.settle(timeout):
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
        _OPEN[self.run.id] = self
        self.engine.deliver(self.run, self.plan, RunStarted())

    def resume(self, snapshot: Snapshot, emissions: Sequence[Emission], origin: str) -> None:
        """Goes on from what the run ``origin`` had come to. Returns at once, as ``start`` does."""
        _OPEN[self.run.id] = self
        self.store.restore(self.run, snapshot)
        for key, value in snapshot.channel.items():
            self.channel.set(key, value, snapshot.ttls.get(key))
        self.store.note("run_resumed", resumed_from=origin)
        if self.store.status.is_terminal:
            self.store.tell_end()
        self.engine.follow(self.run, self.plan, Applied(tuple(emissions)))
        for record in self.store.feedback(self.run):  # what was asked before is asked still
            self._tell_feedback("feedback_requested", record)

    def when_ended(self, call: Callable[[], None]) -> None:
        """Has ``call`` called, from any thread, when the run has ended, or rests; at once if it does."""
        self.store.when_ended(call)

    def cancel(self, reason: str) -> None:
        """Ends the run: nothing of it starts any more."""
        self.engine.end(self.run, CancelRequested(reason))
        if "graflow_celery.coroutines" in sys.modules:
            _coroutines().HOST.cancel(self.run.id)
        with self._gate:
            if self._closed:
                self._forget()

    def stop(self, idle: Callable[[], None]) -> None:
        """Starts nothing more. ``idle`` is called, from any thread, when nothing of the run works any more."""
        self._executor.stop(idle)

    def close(self) -> None:
        """Waits for what still runs, and gives the threads back."""
        self._executor.close()
        if self._own_pool:
            self._pool.shutdown(wait=True)
        with self._gate:
            self._closed = True
            if self.store.status.is_terminal or self._executor.crash is not None:
                self._forget()
            elif not self.store.ended.is_set():  # answered while it was being closed
                self._go_on()

    def settle(self, timeout: float | None = None) -> bool:
        """Blocks until the run has ended, or rests: all that is open waits for a person, who is late.

        False if it goes on after ``timeout`` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.store.ended.wait(None if deadline is None else max(0.0, deadline - time.monotonic())):
            with self._gate:
                if self.store.ended.is_set():  # and nobody answered since
                    return True
        return False

    def feedback(self) -> list[FeedbackRequest]:
        """What its tasks asked of people, in the order of the asking, with the answers that there are."""
        return requests(self.store.feedback(self.run), ended=self.store.status.is_terminal)

    def answer(self, request_id: str, value: Any, *, reason: str | None = None, by: str | None = None) -> None:
        """Answers what a task asked; see `Run.answer`. A run that rests goes on, in the background if need be."""
        request = FeedbackRequest.of(find(self.engine, self.run, request_id))
        response = as_response(request, value, reason, by)
        with self._gate:
            with self._executor.from_outside():
                answer(self.engine, self.run, self.channel, request_id, response, time.time())
            if self._closed:
                self._go_on()

    def result(self) -> Any:
        """The last result of a run that has ended; None if it waits for a person.

        Raises:
            Exception: what the failed task raised.
            GraflowWorkflowCanceledError: it was cancelled.
        """
        if self._executor.crash is not None:
            raise self._executor.crash
        state = self.store.state
        if not state.status.is_terminal:
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
        return [request.feedback_id for request in self.feedback() if request.is_open]

    def _forget(self) -> None:
        if _OPEN.get(self.run.id) is self:
            del _OPEN[self.run.id]

    def _rest(self) -> None:
        """Nothing runs and nothing is about to. If a person is late, whoever waits for the run need wait no longer."""
        with self._gate:
            timed = any(isinstance(command, ExpireGroup) for command in tuple(self.store.state.outbox))
            if self.store.status is RunStatus.WAITING and not timed:
                self.store.tell_end()

    def _go_on(self) -> None:
        """Somebody answered after the run was closed: it gets threads again, until it ends or rests once more."""
        self._closed = False
        self._own_pool = True
        self._pool = ThreadPoolExecutor(max_workers=self._threads, thread_name_prefix="graflow")
        self._executor.reopen(self._pool)
        threading.Thread(target=self._see_out, name="graflow-answered", daemon=True).start()

    def _see_out(self) -> None:
        self.settle()
        self.close()

    def _tell_feedback(self, event: str, record: FeedbackRecord) -> None:
        if self._feedback is not None:
            self._callers.call(functools.partial(consult, self._feedback, record, event, self.answer))

    def run_attempt(self, run: RunRef, plan: Plan, node: str, attempt: int) -> None:
        host = Host(
            context=self.context,
            load=functools.partial(self.graphs.code, plan.graph_of(node_of(node)), node_of(node)),
            run_coroutine=_not_here,
            clock=time.perf_counter,
            random=random.random,
        )
        steps = attempt_steps(self.engine, Attempt(run, plan, node, attempt, "local"), host)
        self._advance(Origin(run.id, plan.name, node, attempt), steps)

    def _advance(self, here: Origin, steps: Steps, value: Any = None, error: BaseException | None = None) -> None:
        """An attempt up to its end, or to its coroutine. While that runs, the attempt has no thread."""
        with within(here):
            token = inside_node.set(True)
            try:
                step = advance(steps, value, error)
            finally:
                inside_node.reset(token)
            if isinstance(step, Coroutine):
                self._executor.hold()
                done = lambda *outcome: self._executor.come_back(lambda: self._advance(here, steps, *outcome))  # noqa: E731
                _coroutines().HOST.start(step, node_of(here.node), owner=self.run.id, done=done)

    def close_barrier(self, run: RunRef, plan: Plan, group: str) -> None:
        self.engine.close_barrier(run, plan, group)

    def carry_out(self, run: RunRef, plan: Plan, commands: Sequence[Command]) -> None:
        """A command whose time has come; but not one that was answered before."""
        due = [command for command in commands if command in self.store.state.outbox]
        self.engine.carry_out(run, plan, due)

    def _told(self, run: RunRef) -> Any:
        """What is to be told of the run when it has ended."""
        nodes, events = self.store.state.nodes, list(self.store.events)
        plan_of = lambda key: self.graphs.plan_for(run, nodes[key].graph if key in nodes else "")  # noqa: E731  one line says it
        return _library("tracing.following").Told(self.plan.name, events, plan_of)

    def _committed(self, run: RunRef, plan: Plan, transition: Transition, applied: Applied) -> None:
        """Takes the checkpoint that is due, if one is. The run goes on without it where it cannot be taken."""
        metadata = occasion(transition, applied, self._every)
        if metadata is None:
            return
        try:
            self.context.checkpoint(metadata)
        except (GraflowError, OSError) as error:
            logger.warning("run %s: no checkpoint: %s", run.id, error)


class _Checkpoints:
    """Of a run here. See `checkpointing`, which is loaded when the first one is taken."""

    def __init__(self, run: LocalRun, to: Any, settings: Any) -> None:
        self.run = run.run
        self.plan = run.plan
        self.backend = {"run": "local", "channel": "memory"}
        self._run = run
        self._to = to
        self._settings = settings
        self._sent: tuple[int, Any] | None = None

    def take(self, metadata: Mapping[str, Any], path: str | None = None) -> tuple[str, Any]:
        library = _library("checkpointing")
        made: tuple[str, Any] = library.take(self, metadata, path, self._to or library.DIRECTORY, self._settings)
        return made

    def snapshot(self) -> Snapshot:
        return self._run.store.snapshot(self.run)

    def graphs(self, codec: Any) -> Any:
        """Packed once for each number of them."""
        graphs, llm = self._run.graphs, self._run.llm
        written = dict(graphs.written)
        if self._sent is None or self._sent[0] != len(written):
            factories = {} if llm is None else llm.factories()
            sent = _library("engine.checkpoint").send_graphs(written, graphs.stored, codec, factories)
            self._sent = (len(written), sent)
        return self._sent[1]

    def taken(self, path: str, metadata: Any) -> None:
        self._run.store.note("checkpoint_taken", path=path, count=metadata.steps)


def _written(definition: WorkflowDefinition, start_node: str | None) -> LocalGraphs:
    plan = lower(definition.graph, definition.name, start_node)
    nodes = {name: definition.graph.get_node(name) for name in plan.nodes}
    return LocalGraphs(plan, {name: node for name, node in nodes.items() if isinstance(node, Executable)})


@functools.cache
def _library(name: str) -> Any:
    """What a run needs only if it is to be kept, loaded by name then: it would make every start slower."""
    return importlib.import_module(f"graflow_celery.{name}")


def open_run(run_id: str) -> LocalRun | None:
    """The run of this process that has this id, if it has not ended."""
    return _OPEN.get(run_id)


def open_runs() -> list[LocalRun]:
    """The runs of this process that have not ended: also those that wait for a person, though nobody waits for them."""
    return list(_OPEN.values())


@functools.cache
def _coroutines() -> Any:
    """Loaded with the first coroutine: asyncio costs 30 ms that other runs do not owe."""
    return importlib.import_module("graflow_celery.coroutines")


def _not_here(coroutine: Coroutine[Any, Any, Any]) -> tuple[Any, BaseException | None]:
    coroutine.close()
    return None, RunStateError("A local run takes the steps of an attempt one by one.")
