"""A node's message in a worker's main process: what only that process sees is told to the store from here.

Celery counts a chord's part for a message that it ends by itself: one that was revoked, ran past its hard time limit,
or whose process died. Such an end counts here only if the store's fence lets it, and then the barrier is told directly.
So these paths see no chord: there is none in the message.
"""

from __future__ import annotations

import logging
import random
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from billiard.exceptions import WorkerLostError as ProcessLostError
from celery import Task
from celery.exceptions import Ignore, InvalidTaskError
from celery.worker import state
from celery.worker.request import Request

from graflow_celery.celery_backend.compiler import workflow_in
from graflow_celery.celery_backend.identity import holder_of
from graflow_celery.celery_backend.rows import Report, Row, are_wanted, events_of, rows_in
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.activation import node_of
from graflow_celery.core.events import NodeFailed
from graflow_celery.coroutines import HOST
from graflow_celery.errors import GraflowError, TaskCancelledError, TimeLimitError
from graflow_celery.failpoints import Point, reach
from graflow_celery.ports import Held, Outcome, RunRef

logger = logging.getLogger(__name__)

#: A task that hangs in C code would not notice anything gentler.
KILL = signal.SIGKILL


class NodeRequest(Request):
    """See the module. ``task.runtime()`` gives the process's runtime."""

    task: NodeTask

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raises InvalidTaskError, for which Celery drops a message: we did not send it.

        Whoever may write to the broker could send one that is held for long. The worker's beat reads all that are held.
        """
        super().__init__(*args, **kwargs)
        match self.args:
            case [str(), str(), str(), int()] | [str(), str(), str(), int(), str()]:
                return
        raise InvalidTaskError(f"{self.name}[{self.id}] has not the arguments of a node's message")

    @property
    def held(self) -> Held:
        """The attempt that the message stands for."""
        run_id, graph, node, attempt, *added = self.args
        here = (self.worker_pid or 0, bool(self.time_start))
        return Held(RunRef(run_id, graph), node, attempt, added[0] if added else "", *here)

    @property
    def holder(self) -> str:
        return holder_of(self.hostname)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        if not soft and not state.should_terminate:
            reason = f"it ran past its time_limit of {timeout:g} s and was killed"
            self._fail(TimeLimitError(node_of(self.held.node), reason), reason, retryable=True, duration=timeout)
        super().on_timeout(soft, timeout)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, Ignore):
            super().on_failure(exc_info, send_failed_event, return_ok)
            if error.args and isinstance(error.args[0], Report) and are_wanted(self._eventer):
                self._tell(error.args[0].rows)
            return
        died = isinstance(error, ProcessLostError | SystemExit | KeyboardInterrupt)
        if not died or self._already_cancelled or self._already_revoked:
            super().on_failure(exc_info, send_failed_event, return_ok)
            return
        state.task_ready(self)
        reach(Point.CHILD_DIED, self.held.node)
        with told():
            self.task.runtime().lose(self.held, self.holder, f"its process {self.worker_pid} on {self.hostname} died")
        reach(Point.CHILD_REPLACED, self.held.node)
        # The attempt that takes over has a message of its own.
        self.acknowledge()
        self.send_event("task-revoked", terminated=True, signum="SIGKILL", expired=False)

    def send_event(self, type: str, **fields: Any) -> None:
        """An event of Celery's. That a message ended well is said of its nodes instead, as they ended: see `rows`."""
        if not are_wanted(self._eventer):
            return
        rows = rows_in(fields.get("result")) if type == "task-succeeded" else None
        if rows is None:
            super().send_event(type, **fields)
        else:
            self._tell(rows)

    def _tell(self, rows: Sequence[Row]) -> None:
        held = self.held
        workflow = workflow_in(self.argsrepr or "", held.node, f"#{held.attempt}")
        for kind, fields in events_of(self.id, held.run, workflow, rows, time.time()):
            self._eventer.send(kind, **fields)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        text = "Celery revoked it and ended its process" if terminated else "Celery revoked it before it ran"
        self._fail(TaskCancelledError(node_of(self.held.node), text), f"TaskCancelledError: {text}", retryable=False)
        super()._announce_revoked(reason, terminated, signum, expired)

    def _announce_cancelled(self, emit_retry: bool = True) -> None:
        # Celery cancels what runs when it shuts down at once, from the handler of a signal: nothing may block here.
        GIVEN_BACK.append((self, self.held))
        super()._announce_cancelled(emit_retry)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """``revoke(terminate=True)``. A coroutine that runs in this process, in a pool of threads or of greenlets, is
        cancelled; its node fails with that. What runs in a pool's process is ended with the process.
        """
        if not HOST.cancel(self.id):
            super().terminate(pool, signal)

    def _fail(self, error: Exception, reason: str, *, retryable: bool, duration: float = 0.0) -> None:
        held, here = self.held, self.task.runtime()
        with told():
            plan = here.plan_for(held.run, held.added)
            [retries] = here.store.retries(held.run, [held.node])
            outcome = Outcome(error=error, worker=self.hostname, duration=duration, reported=True)
            failed = NodeFailed(held.node, held.attempt, reason, retryable, retries, random.random(), counted=False)
            here.engine.deliver(held.run, plan, failed, outcome)


class NodeTask(Task):
    """The Celery task class of nodes. ``runtime`` gives the process's runtime."""

    Request = NodeRequest
    runtime: Callable[[], Runtime]


#: Requests that this worker gave up, as they were then, to be told to the store by the next beat.
GIVEN_BACK: deque[tuple[NodeRequest, Held]] = deque()


def held_requests() -> list[NodeRequest]:
    """The messages of nodes with which this worker has not done: they run, were received, or wait for their time."""
    return [request for request in list(state.requests.values()) if isinstance(request, NodeRequest)]


def give_back(given: list[tuple[NodeRequest, Held]], cause: str) -> None:
    """Tells the store that attempts of this worker will not come to their end, through no fault of theirs."""
    for request, held in given:
        with told():
            request.task.runtime().give_back(held, request.holder, cause)


def stop_stale(run_ids: set[str], pool: Any) -> list[str]:
    """Ends what this worker runs of some runs although the store has gone on without it; returns the ids of its tasks.

    Called from where the worker hands out work: a process that has not answered yet for a task runs nothing else, so
    what is compared here, process, task and attempt, still holds when the process is ended. Threads cannot be ended;
    what they come to is refused.
    """
    ended: list[str] = []
    for request in held_requests():
        held = request.held
        if not held.running or held.run.id not in run_ids or request.acknowledged:
            continue
        if request.task.runtime().is_wanted(held, request.holder):
            continue
        logger.warning("'%s' attempt %d of run %s is not wanted any more: ended", held.node, held.attempt, held.run.id)
        ended.append(request.id)
        if not HOST.cancel(request.id):
            try:
                pool.terminate_job(held.pid, KILL)
            except NotImplementedError:
                logger.info("this pool cannot end a task that runs; what it comes to is refused")
    return ended


@contextmanager
def told() -> Iterator[None]:
    """Keeps the worker's main process going where the outcome of a task that it ended cannot be stored.

    Then nobody is told now; the monitor finds an attempt that nobody runs.
    """
    try:
        yield
    except (redis.RedisError, GraflowError):
        logger.exception("the outcome of a task that was ended could not be stored")
