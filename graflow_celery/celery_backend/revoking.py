"""Tells whoever follows Celery's events that an attempt is over which its own worker cannot end any more.

A worker that was killed sends no event, so its tasks would stay ``STARTED`` in Flower for ever. Whoever reports the
loss says it: the attempt was revoked, because another takes its place; or it failed, because none does. Losses are
rare, so each is one message, whether anybody follows or not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from graflow_celery.celery_backend.rows import Row, told_of
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import Applied, Transition
from graflow_celery.ports import RunRef
from graflow_celery.redis_backend.client import short
from graflow_celery.redis_backend.liveness import name_of

logger = logging.getLogger(__name__)

Committed = Callable[[RunRef, Plan, Transition, Applied], None]


def revoking(app: Celery, then: Committed) -> Committed:
    """What an engine calls after each commit; it calls ``then`` too. It raises nothing of its own."""

    def committed(run: RunRef, plan: Plan, transition: Transition, applied: Applied) -> None:
        then(run, plan, transition, applied)
        if applied.stale or transition.node is None or not (transition.loses or transition.event == "node_returned"):
            return
        row = Row(transition.node, transition.attempt, "failed" if transition.is_final else "stale", transition.reason)
        kind, fields = told_of(run, plan.name, row, time.time())
        worker = name_of(transition.holder or "")
        try:
            with app.events.default_dispatcher(worker or None, buffer_while_offline=True) as events:
                events.send(kind, **fields)
        except (OperationalError, OSError, redis.RedisError) as error:
            logger.info("no event tells that '%s' of run %s was lost: %s", row.node, run.id, short(error))

    return committed
