"""Traces of runs: run > group > node > attempt, by OpenTelemetry or Langfuse. Loaded only where something is traced.

workflow("etl", tracer=OpenTelemetryTracer())      # or the setting tracing = "otel"
workflow("agents", tracer=LangfuseTracer())        # or the setting tracing = "langfuse"
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graflow_celery.errors import ExtraMissingError
from graflow_celery.tracing.identity import trace_id_of as trace_id_of

if TYPE_CHECKING:
    from graflow_celery.tracing.langfuse import LangfuseTracer as LangfuseTracer
    from graflow_celery.tracing.otel import OpenTelemetryTracer as OpenTelemetryTracer

#: Where each tracer is, and the extra that brings what it needs.
_TRACERS = {"OpenTelemetryTracer": "otel", "LangfuseTracer": "langfuse"}

__all__ = ["LangfuseTracer", "OpenTelemetryTracer", "trace_id_of"]


def __getattr__(name: str) -> Any:
    extra = _TRACERS.get(name)
    if extra is None:
        raise AttributeError(f"module 'graflow_celery.tracing' has no attribute '{name}'")
    try:
        return getattr(importlib.import_module(f"graflow_celery.tracing.{extra}"), name)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in ("opentelemetry", "langfuse"):
            raise
        raise ExtraMissingError(library, extra) from error
