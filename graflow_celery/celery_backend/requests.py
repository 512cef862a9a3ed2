"""A node's message in a worker's main process: what only that process sees is told to the store from here.

Celery ends a message by itself that was revoked, ran past its hard time limit, or whose process died. Such an end
counts only if the store's fence lets it.
"""

from __future__ import annotations

import logging
import random
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import redis
from billiard.exceptions import WorkerLostError as ProcessLostError
from celery import Task
from celery.exceptions import Ignore, InvalidTaskError
from celery.worker import state
from celery.worker.request import Request

from graflow_celery.celery_backend.board import Doing
from graflow_celery.celery_backend.compiler import range_of, workflow_in
from graflow_celery.celery_backend.identity import holder_of
from graflow_celery.celery_backend.rows import Row, are_wanted, events_of, rows_in, told_of
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.celery_backend.sharing import board_of
from graflow_celery.core.activation import node_of
from graflow_celery.core.events import NodeFailed
from graflow_celery.core.place import Place
from graflow_celery.coroutines import HOST
from graflow_celery.engine.portions import MOST
from graflow_celery.errors import GraflowError, TaskCancelledError, TimeLimitError
from graflow_celery.failpoints import Point, reach
from graflow_celery.ports import Held, Outcome, RunRef

logger = logging.getLogger(__name__)

#: A task that hangs in C code would not notice anything gentler.
KILL = signal.SIGKILL


class NodeRequest(Request):
    """See the module. ``task.runtime()`` gives the process's runtime."""

    task: NodeTask
    _shown = ("", 0)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raises InvalidTaskError, for which Celery drops a message: we did not send it.

        Whoever may write to the broker could send one that is held for long. The worker's beat reads all that are held.
        """
        super().__init__(*args, **kwargs)
        match self.args:
            case [str(), str(), str(), int()] | [str(), str(), str(), int(), str()]:
                return
            case [str(), str(), str(), [int(first), int(count)], *rest] if first >= 0 and 0 < count <= MOST:
                if rest == [] or (len(rest) == 1 and isinstance(rest[0], str)):
                    return
        raise InvalidTaskError(f"{self.name}[{self.id}] has not the arguments of a node's message")

    @property
    def opening(self) -> Held:
        """What the message was sent for."""
        run_id, graph, node, attempt, *added = self.args
        run, where = RunRef(run_id, graph), (added[0] if added else "", self.worker_pid or 0, bool(self.time_start))
        if isinstance(attempt, int):
            return Held(run, node, attempt, *where)
        return Held(run, node, run.first, *where, members=(attempt[0], attempt[1]))

    @property
    def doing(self) -> Doing | None:
        """What its process does with it now, as far as that can be told."""
        board = board_of(self.app)
        return board.read(self.worker_pid or 0, self.id) if board is not None and self.time_start else None

    @property
    def held(self) -> tuple[Held, ...]:
        """The attempts that the message stands for by now."""
        doing, opening = self.doing, self.opening
        if doing is None:
            return (opening,)
        granted = [Held(opening.run, *named, opening.pid, True) for named in doing.granted]
        rest = doing.rest
        if rest is None:
            return tuple(granted)
        members = (rest.first, rest.count)
        return (*granted, Held(opening.run, rest.group, opening.run.first, rest.graph, opening.pid, members=members))

    @property
    def current(self) -> Held | None:
        """The attempt that runs now, if one has leave and runs."""
        doing = self.doing
        if doing is None:
            return self.opening if self.opening.running and self.opening.members is None else None
        return None if doing.runs is None else Held(self.opening.run, *doing.runs, self.opening.pid, True)

    @property
    def holder(self) -> str:
        return holder_of(self.hostname)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        if not soft and not state.should_terminate:
            reason = f"it ran past its time_limit of {timeout:g} s and was killed"
            self._fail(self.opening, TimeLimitError, reason, reason, retryable=True, duration=timeout)
        super().on_timeout(soft, timeout)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        died = isinstance(error, ProcessLostError | SystemExit | KeyboardInterrupt)
        if not died or self._already_cancelled or self._already_revoked:
            super().on_failure(exc_info, send_failed_event, return_ok)
            if isinstance(error, Ignore):  # of which Celery sends no event
                self.send_event("task-revoked", terminated=False, signum=None, expired=False)
            return
        state.task_ready(self)
        cause, current = f"its process {self.worker_pid} on {self.hostname} died", self.current
        for held in self.held:
            reach(Point.CHILD_DIED, held.node)
            with told():
                # What was loaded before anything ran is at fault too.
                at_fault = held == current or (current is None and held == self.opening)
                self.task.runtime().lose(held, self.holder, cause, at_fault=at_fault)
            reach(Point.CHILD_REPLACED, held.node)
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
            return
        for kind, told in events_of(self.id, self.opening.run, self._workflow, rows, time.time()):
            self._eventer.send(kind, **told)

    def show_current(self) -> None:
        """Has Celery's events say which attempt runs now, if it is not the message's own and was not said yet."""
        current = self.current if are_wanted(self._eventer) else None
        if current is None or (current.node, current.attempt) == self._shown:
            return
        self._shown = (current.node, current.attempt)
        kind, told = told_of(current.run, self._workflow, Row(*self._shown, "running"), time.time())
        if told["uuid"] != self.id:
            self._eventer.send(kind, **told)

    @property
    def _workflow(self) -> str:
        opening = self.opening
        node = opening.node if opening.members is None else range_of(opening.node, *opening.members)
        return workflow_in(self.argsrepr or "", node, f"#{opening.attempt}")

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        text = "Celery revoked it and ended its process" if terminated else "Celery revoked it before it ran"
        for held in self.held:
            for each in self._apart(held):
                self._fail(each, TaskCancelledError, text, f"TaskCancelledError: {text}", retryable=False)
        super()._announce_revoked(reason, terminated, signum, expired)

    def _announce_cancelled(self, emit_retry: bool = True) -> None:
        # Celery cancels what runs when it shuts down at once, from the handler of a signal: nothing may block here.
        GIVEN_BACK.extend((self, held) for held in self.held)
        super()._announce_cancelled(emit_retry)

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """``revoke(terminate=True)``. A coroutine that runs in this process, in a pool of threads or of greenlets, is
        cancelled; its node fails with that. What runs in a pool's process is ended with the process.
        """
        if not HOST.cancel(self.id):
            super().terminate(pool, signal)

    def _apart(self, held: Held) -> Iterator[Held]:
        """Each of the attempts that are held together."""
        if held.members is None:
            yield held
            return
        with told():
            group = Place.of(self.task.runtime().plan_for(held.run, held.added), held.node)
            for number in range(held.members[0], sum(held.members)):
                yield replace(held, node=group.start(number), members=None)

    def _fail(
        self,
        held: Held,
        kind: type[TimeLimitError] | type[TaskCancelledError],
        text: str,
        reason: str,
        *,
        retryable: bool,
        duration: float = 0.0,
    ) -> None:
        here, error = self.task.runtime(), kind(node_of(held.node), text)
        with told():
            plan = here.plan_for(held.run, held.added)
            [retries] = here.store.retries(held.run, [held.node])
            outcome = Outcome(error=error, worker=self.hostname, duration=duration, reported=True)
            failed = NodeFailed(held.node, held.attempt, reason, retryable, retries, random.random())
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
        held = request.current
        if held is None or held.run.id not in run_ids or request.acknowledged:
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
