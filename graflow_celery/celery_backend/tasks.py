"""The Celery tasks of the engine. They hold no rule: they hand a message's references to the engine."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from billiard.common import terminate_handler_fired
from celery import Celery, Task
from celery.exceptions import Ignore, Reject

from graflow_celery.celery_backend.board import Line
from graflow_celery.celery_backend.collecting import COLLECTORS
from graflow_celery.celery_backend.compiler import BARRIER_TASK, NODE_TASK
from graflow_celery.celery_backend.identity import holder_of
from graflow_celery.celery_backend.pacer import PACER
from graflow_celery.celery_backend.requests import NodeRequest
from graflow_celery.celery_backend.rows import LONGEST_REPORT, Report
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.celery_backend.sharing import board_of
from graflow_celery.celery_backend.terms import WorkerTerms
from graflow_celery.core.activation import node_of
from graflow_celery.core.events import RunAborted
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.engine.node import NodeCode
from graflow_celery.engine.shift import Shift
from graflow_celery.errors import (
    BlobMissingError,
    BlobRejectedError,
    CodeNotFoundError,
    StoreRefusedError,
    StoreUnavailableError,
)
from graflow_celery.failpoints import Point, reach
from graflow_celery.ports import Members, RunRef
from graflow_celery.redis_backend.client import patience
from graflow_celery.redis_backend.plea import asking

logger = logging.getLogger(__name__)

#: A message is acknowledged after the commit, and goes back to the queue if the process dies before.
DELIVERY: dict[str, Any] = {
    "shared": False,  # bound to one app's runtime: another app in this process must not get them
    "acks_late": True,
    "acks_on_failure_or_timeout": True,
    "reject_on_worker_lost": True,
    "ignore_result": True,
    "store_errors_even_if_ignored": False,
}


class NodeTask(Task):
    """The Celery task class of nodes. ``runtime`` gives the process's runtime."""

    Request = NodeRequest
    resultrepr_maxsize = LONGEST_REPORT
    runtime: Callable[[], Runtime]


def register(app: Celery, runtime: Callable[[], Runtime]) -> None:
    """Adds the engine's tasks to an app; ``runtime`` gives the process's runtime when a task runs."""

    @app.task(name=NODE_TASK, bind=True, base=NodeTask, runtime=staticmethod(runtime), **DELIVERY)
    def node(self: Any, run_id: str, graph: str, node_id: str, attempt: int | list[int], added: str = "") -> Report:
        """One attempt of one node, of the workflow as written or of the graph that holds added tasks; or the first
        attempts of members of a group: the number of the first, and how many. And what follows, if it may run here.
        """
        here = runtime()
        run = RunRef(run_id, graph)
        with _given_back(here.settings.reconnect_timeout), asking(run, node_of(node_id)):
            plan = _plan(here, run, added)
            return _run_shift(here, self.request, run, plan, _opening(node_id, attempt, added))

    @app.task(name=BARRIER_TASK, bind=True, **DELIVERY)
    def barrier(self: Any, run_id: str, graph: str, group: str, added: str = "") -> None:
        """The end of a group's superstep."""
        here = runtime()
        run = RunRef(run_id, graph)
        reach(Point.BARRIER_RECEIVED, group)
        with _given_back(here.settings.reconnect_timeout), asking(run, node_of(group)):
            plan = _plan(here, run, added)
            here.engine.close_barrier(run, plan, group)
        reach(Point.BARRIER_FOLLOWED, group)


def _opening(node: str, attempt: int | list[int], added: str) -> tuple[str, int] | Members:
    return (node, attempt) if isinstance(attempt, int) else Members(node, attempt[0], attempt[1], added)


def _run_shift(here: Runtime, request: Any, run: RunRef, plan: Plan, opening: tuple[str, int] | Members) -> Report:
    """What a message is for. Returns what each attempt came to."""
    worker = request.hostname or here.where
    COLLECTORS.ensure(here.client, here.keys, here.settings, worker)
    line = Line(board_of(here.app), request.id)
    first = Place.of(plan, opening.group).start(opening.first) if isinstance(opening, Members) else opening[0]
    terms = WorkerTerms(here, run, plan, first, worker, request.id, line, partial(_code, here))
    holder, lock = holder_of(worker), threading.RLock()
    shift = Shift(here.engine, here.store, run, plan, worker, holder, terms, time.perf_counter, lock, here.knowledge)
    try:
        with PACER.looking_after(shift):
            if isinstance(opening, Members):
                shift.run_members(opening)
            else:
                shift.run_node(*opening)
    finally:
        line.wipe()
    here.durations.tell(terms.kinds)
    for entry in shift.entries:
        reach(Point.NODE_FOLLOWED, entry.node)
    for group in terms.closed:
        reach(Point.BARRIER_FOLLOWED, group)
    return Report(shift.entries)


@contextmanager
def _given_back(timeout: float) -> Iterator[None]:
    """Waits ``timeout`` seconds for a store that is away or full, so that an outcome is kept until it can be committed.

    Then the message goes back to the broker: the attempt did not end, nor must it count.
    """
    try:
        with patience(timeout):
            yield
    except (StoreUnavailableError, StoreRefusedError) as error:
        logger.warning("the store does not serve, so the message goes back to the queue: %s", error)
        raise Reject(error, requeue=True) from error


def _code(here: Runtime, run: RunRef, plan: Plan, node: str, worker: str) -> NodeCode:
    """The node's code. A pool's process that is told to end while it imports it ends; the code is not at fault."""
    graph = plan.graph_of(node_of(node)) or run.graph
    try:
        code = here.code(graph, node)
    except CodeNotFoundError as error:
        if terminate_handler_fired() and isinstance(error.__cause__, SystemExit):
            raise error.__cause__ from None
        raise
    here.tell_of_code(run, graph, node, worker)
    return code


def _plan(here: Runtime, run: RunRef, added: str) -> Plan:
    """The run's plan. Without it the run can only end."""
    try:
        return here.plan_for(run, added)
    except (BlobMissingError, BlobRejectedError) as error:
        if here.is_of(run):
            here.engine.end(run, RunAborted(str(error)))
        else:
            logger.error("run %s: a message of it is dropped, as the run itself says something else: %s", run.id, error)
        raise Ignore from error
