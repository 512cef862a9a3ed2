"""Keeps `opentelemetry-instrumentation-celery` from tracing once more the messages that carry what is traced here.

It has no list of what to leave out. Its own tracer, which every one of its spans comes from, is put behind one that
makes none for tasks of ours; the tasks of the application are traced by it as before.
"""

from __future__ import annotations

import sys
from typing import Any

from opentelemetry import trace

MODULE = "opentelemetry.instrumentation.celery"
#: It names its spans ``run/TASK`` and ``apply_async/TASK``.
OURS = ("run/graflow.", "apply_async/graflow.")


def keep_quiet() -> None:
    """Does so in this process, if it is at work here."""
    module = sys.modules.get(MODULE)
    instrumentor = None if module is None else module.CeleryInstrumentor()
    tracer = getattr(instrumentor, "_tracer", None)
    if instrumentor is not None and tracer is not None and not isinstance(tracer, _Discreet):
        instrumentor._tracer = _Discreet(tracer)


class _Discreet(trace.Tracer):
    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def start_span(self, name: str, *args: Any, **kwargs: Any) -> trace.Span:
        return trace.INVALID_SPAN if name.startswith(OURS) else self._tracer.start_span(name, *args, **kwargs)

    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        return self._tracer.start_as_current_span(*args, **kwargs)
