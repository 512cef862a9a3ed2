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
from weakref import WeakMethod

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from graflow_celery.settings import mask_url

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
#: Milliseconds for which spans wait to go out together, unless this variable says something else.
DELAY, DELAY_VARIABLE = 1000, "OTEL_BSP_SCHEDULE_DELAY"
#: How many spans wait to go out, and go out together, unless these variables say something else. The SDK's own figures.
ROOM, ROOM_VARIABLE = 2048, "OTEL_BSP_MAX_QUEUE_SIZE"
BATCH, BATCH_VARIABLE = 512, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
#: Seconds for which one batch is tried, unless one of these variables says something else.
TIMEOUT, TIMEOUT_VARIABLES = 3, ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
#: Seconds for which the end of a process waits for its last spans.
FAREWELL = 2.0
#: Seconds after a failure in which nothing is tried.
REST = 5.0

logger = logging.getLogger(__name__)
#: Is called with how many spans more were dropped, from any thread.
Lost = Callable[[int], None]


def nobody(count: int) -> None:
    """Where nobody wants to know."""


def current(lost: Lost = nobody) -> trace.TracerProvider:
    """The provider that is set in this process; one made of the environment if none is and it says where spans go.

    ``lost``: is told how many spans were dropped, if it is made now.
    """
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
    trace.set_tracer_provider(made(_otlp, where, lost)[0])
    return trace.get_tracer_provider()


def _otlp() -> SpanExporter:
    given = any(os.environ.get(name) for name in TIMEOUT_VARIABLES)
    return OTLPSpanExporter(timeout=None if given else TIMEOUT)


@functools.cache
def warn(text: str) -> None:
    """Says something once in a process."""
    logger.warning(text)


def made(
    exporter: Callable[[], SpanExporter], where: str, lost: Lost = nobody, **options: int
) -> tuple[Provider, Counting]:
    """A provider whose spans an exporter sends ``where``, within a second, and what counts them.

    The exporter is made in each process for itself. ``options``: of the SDK's ``BatchSpanProcessor``.
    """
    provider = Provider(shutdown_on_exit=False)  # which waits for up to 30 seconds
    if not os.environ.get(DELAY_VARIABLE):
        options = {"schedule_delay_millis": DELAY, **options}
    counting = Counting(Forgiving(exporter, where, lost), lost, **options)
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

    def __init__(self, make: Callable[[], SpanExporter], where: str, lost: Lost = nobody) -> None:
        self._make = make
        self._where = mask_url(where)
        self._lost = lost
        self._made: tuple[int, SpanExporter] | None = None
        self._warned = False
        self._rests_until = 0.0
        self.handed = 0
        self.refused = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.handed += len(spans)
        result = SpanExportResult.FAILURE
        if time.monotonic() >= self._rests_until:
            with _SILENCE:
                result = self._exporter().export(spans)
            if result is not SpanExportResult.SUCCESS:
                self._rests_until = time.monotonic() + REST
        if result is not SpanExportResult.SUCCESS:
            self.refused += len(spans)
            self._lost(len(spans))
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
    """Takes no more spans than there is room for, and counts those that it drops.

    The SDK's queue would drop them, too, without saying how many.
    """

    def __init__(self, exporter: Forgiving, lost: Lost = nobody, **options: Any) -> None:
        room = options.setdefault("max_queue_size", _room())
        if "max_export_batch_size" not in options and not os.environ.get(BATCH_VARIABLE):
            options["max_export_batch_size"] = min(BATCH, room)
        super().__init__(exporter, **options)
        self.sender = exporter
        self._room = room
        self._lost = lost
        self._begin()
        again = WeakMethod(self._begin)
        os.register_at_fork(after_in_child=lambda: (begin := again()) and begin())

    def _begin(self) -> None:
        """The queue of a forked process is empty."""
        self._lock = threading.Lock()
        self._taken, self._handed_before = 0, self.sender.handed
        self.overflowed = 0

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is None or not span.context.trace_flags.sampled:
            return
        with self._lock:
            full = self._taken - (self.sender.handed - self._handed_before) >= self._room
            self._taken += not full
            self.overflowed += full
        if full:
            self._lost(1)
        else:
            super().on_end(span)

    @property
    def dropped(self) -> int:
        """How many were not sent and never will be."""
        return self.overflowed + self.sender.refused


def _room() -> int:
    try:
        return int(os.environ.get(ROOM_VARIABLE) or ROOM)
    except ValueError:
        return ROOM


class _Silence(logging.Filter):
    """Keeps what the SDK logs of each batch that it cannot send to itself, in threads that are inside of it."""

    LOGGER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"

    def __init__(self) -> None:
        super().__init__()
        self._inside = threading.local()
        logging.getLogger(self.LOGGER).addFilter(self)

    def __enter__(self) -> None:
        self._inside.depth = getattr(self._inside, "depth", 0) + 1

    def __exit__(self, *_: object) -> None:
        self._inside.depth -= 1

    def filter(self, record: logging.LogRecord) -> bool:
        return not getattr(self._inside, "depth", 0)


_SILENCE = _Silence()
