"""The provider of a process that has none: spans go out in batches, from a thread, and never hold anything up."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from graflow_celery.settings import mask_url

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
#: Milliseconds for which spans wait to go out together, unless this variable says something else.
DELAY, DELAY_VARIABLE = 1000, "OTEL_BSP_SCHEDULE_DELAY"
#: Seconds for which one batch is tried, unless one of these variables says something else.
TIMEOUT, TIMEOUT_VARIABLES = 3, ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
#: Seconds for which the end of a process waits for its last spans.
FAREWELL = 2.0
#: Seconds after a failure in which nothing is tried.
REST = 5.0

logger = logging.getLogger(__name__)


def current() -> trace.TracerProvider:
    """The provider that is set in this process; one made of the environment if none is and it says where spans go."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, trace.ProxyTracerProvider):
        return provider
    where = next(filter(None, map(os.environ.get, ENDPOINTS)), None)
    if where is None:
        warn(
            "a run is traced, but nothing says where its spans go: set OTEL_EXPORTER_OTLP_ENDPOINT, start with "
            "opentelemetry-instrument, or set a provider"
        )
        return provider
    trace.set_tracer_provider(made(_otlp, where)[0])
    return trace.get_tracer_provider()


def _otlp() -> SpanExporter:
    given = any(os.environ.get(name) for name in TIMEOUT_VARIABLES)
    return OTLPSpanExporter(timeout=None if given else TIMEOUT)


@functools.cache
def warn(text: str) -> None:
    """Says something once in a process."""
    logger.warning(text)


def made(exporter: Callable[[], SpanExporter], where: str, **options: int) -> tuple[Provider, Counting]:
    """A provider whose spans an exporter sends ``where``, within a second, and what counts them.

    The exporter is made in each process for itself. ``options``: of the SDK's ``BatchSpanProcessor``.
    """
    provider = Provider(shutdown_on_exit=False)  # which waits for up to 30 seconds
    if not os.environ.get(DELAY_VARIABLE):
        options = {"schedule_delay_millis": DELAY, **options}
    counting = Counting(Forgiving(exporter, where), **options)
    provider.add_span_processor(counting)
    provider.sink = counting
    atexit.register(flush, provider, FAREWELL)
    return provider, counting


class Provider(TracerProvider):
    """One that knows whether anybody but us looks at its spans: then ``sink`` is None."""

    sink: Counting | None = None

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        self.sink = None
        super().add_span_processor(span_processor)


def flush(provider: Any, seconds: float) -> bool:
    """Has a provider send what it has, and waits so long at the most. Whether that was enough.

    The SDK's own ``force_flush`` takes no heed of its timeout.
    """
    force = getattr(provider, "force_flush", None)
    if force is None:
        return True
    name = f"graflow-flush-{id(provider)}"
    if any(thread.name == name for thread in threading.enumerate()):  # one waits in vain already
        return False
    thread = threading.Thread(target=force, name=name, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()


class Forgiving(SpanExporter):
    """Sends spans by an exporter of this process's own. If that fails they are dropped and counted; one warning.

    After a failure nothing is tried for a few seconds, so that whoever waits for spans to be sent does not wait long.
    """

    def __init__(self, make: Callable[[], SpanExporter], where: str) -> None:
        self._make = make
        self._where = mask_url(where)
        self._made: tuple[int, SpanExporter] | None = None
        self._warned = False
        self._rests_until = 0.0
        self.handed = 0
        self.refused = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.handed += len(spans)
        if time.monotonic() < self._rests_until:
            self.refused += len(spans)
            return SpanExportResult.FAILURE
        with _SILENCE:
            result = self._exporter().export(spans)
        if result is not SpanExportResult.SUCCESS:
            self.refused += len(spans)
            self._rests_until = time.monotonic() + REST
            if not self._warned:
                self._warned = True
                logger.warning("spans cannot be sent to %s: they are dropped. Runs go on as they are.", self._where)
        return result

    def shutdown(self) -> None:
        self._exporter().shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._exporter().force_flush(timeout_millis)

    def _exporter(self) -> SpanExporter:
        """Not that of the process that forked this one, whose connection both would write to."""
        if self._made is None or self._made[0] != os.getpid():
            self._made = os.getpid(), self._make()
        return self._made[1]


class Counting(BatchSpanProcessor):
    """Counts the spans that it is given, so that it is known how many did not arrive."""

    def __init__(self, exporter: Forgiving, **options: Any) -> None:
        super().__init__(exporter, **options)
        self.sender = exporter
        self.taken = 0

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled:
            self.taken += 1
        with _SILENCE:
            super().on_end(span)

    @property
    def dropped(self) -> int:
        """How many were not sent, those included that wait to be."""
        return self.taken - self.sender.handed + self.sender.refused


class _Silence(logging.Filter):
    """Keeps what the SDK logs of each batch and each span that it drops to itself, in threads that are inside of it."""

    LOGGERS = ("opentelemetry.exporter.otlp.proto.http.trace_exporter", "opentelemetry.sdk._shared_internal")

    def __init__(self) -> None:
        super().__init__()
        self._inside = threading.local()
        for name in self.LOGGERS:
            logging.getLogger(name).addFilter(self)

    def __enter__(self) -> None:
        self._inside.depth = getattr(self._inside, "depth", 0) + 1

    def __exit__(self, *_: object) -> None:
        self._inside.depth -= 1

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(self._inside, "depth", 0)


_SILENCE = _Silence()
