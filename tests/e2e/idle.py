"""Tasks of a module that loads nothing."""

from __future__ import annotations

import sys

from graflow_celery import task


@task
def idle() -> None: ...


@task
def loaded() -> list[str]:
    """What is there for tracing. redis-py loads the API and the SDK's metrics by itself, where they are installed."""
    kinds = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "langfuse")
    return [name for name in sys.modules if name.startswith(kinds)]
