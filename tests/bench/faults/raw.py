"""The plain Celery app that the faults are tried with too: defaults, or `acks_late` and `reject_on_worker_lost`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from celery import Celery, chord

from tests.bench.faults.gate import pass_gate

VARIABLES = ("FAULTS_BROKER", "FAULTS_BACKEND", "FAULTS_QUEUE", "FAULTS_LATE")


def make_app(broker: str, backend: str, queue: str, late: str) -> Celery:
    app = Celery("raw", broker=broker, backend=backend, set_as_current=False)
    app.conf.task_default_queue = queue
    app.conf.broker_connection_retry_on_startup = True
    app.conf.task_acks_late = bool(late)
    app.conf.task_reject_on_worker_lost = bool(late)
    app.task(pass_gate, name="raw.held", shared=False)
    app.task(collect, name="raw.collect", shared=False)
    app.task(burn, name="raw.burn", shared=False)
    return app


def collect(nodes: Sequence[str]) -> list[str]:
    return list(nodes)


def burn(count: int) -> int:
    """One call in C that holds the GIL."""
    return sum(range(count))


def held_chord(app: Celery, work: str, labels: Sequence[str]) -> Any:
    """A chord of tasks that wait for the gate; its body returns the names of the nodes where they ran."""
    held, body = app.tasks["raw.held"], app.tasks["raw.collect"]
    return chord([held.si(work, label) for label in labels], body.s(), app=app).apply_async()


# What `celery -A tests.bench.faults.raw` finds.
app = make_app(*(os.environ.get(name, "") for name in VARIABLES))
