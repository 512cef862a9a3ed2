"""What an application has on its workers: OpenTelemetry's instrumentation of Celery, and a task of its own."""

from __future__ import annotations

from typing import Any

from celery import shared_task, signals
from opentelemetry.instrumentation.celery import CeleryInstrumentor


@shared_task(name="applications.own")
def own() -> None:
    return None


@signals.worker_process_init.connect(weak=False)
def instrument(**_: Any) -> None:
    CeleryInstrumentor().instrument()  # type: ignore[no-untyped-call]
