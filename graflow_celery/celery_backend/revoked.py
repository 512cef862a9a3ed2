"""Fails the node whose message Celery revoked. Only the worker's main process knows of it, and nobody runs it again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery, signals

from graflow_celery.celery_backend.compiler import NODE_TASK
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.celery_backend.tasks import told
from graflow_celery.core.activation import node_of
from graflow_celery.core.events import NodeFailed
from graflow_celery.errors import TaskCancelledError
from graflow_celery.ports import Outcome, RunRef


def install(app: Celery, runtime: Callable[[], Runtime]) -> None:
    """Has every worker of ``app`` tell the store of nodes that were revoked, before they ran or while they did."""

    def revoked(sender: Any = None, request: Any = None, terminated: bool = False, **_: Any) -> None:
        if sender is None or sender.app is not app or sender.name != NODE_TASK:
            return
        run_id, graph, node, attempt, *added = request.args
        reason = "Celery revoked it and ended its process" if terminated else "Celery revoked it before it ran"
        here = runtime()
        run = RunRef(run_id, graph)
        outcome = Outcome(error=TaskCancelledError(node_of(node), reason), worker=request.hostname or here.where)
        event = NodeFailed(node, attempt, f"TaskCancelledError: {reason}", retryable=False)
        with told():
            here.engine.deliver(run, here.plan_for(run, *added), event, outcome)

    signals.task_revoked.connect(revoked, weak=False)
