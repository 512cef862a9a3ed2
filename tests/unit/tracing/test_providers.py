"""Where nobody takes the spans: they are dropped and counted, told of once, and nothing waits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from graflow_celery.testing import wait_until
from graflow_celery.tracing import providers


class Refusing(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter").error("each time")
        return SpanExportResult.FAILURE


class Blocking(SpanExporter):
    def __init__(self) -> None:
        self.free = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.free.wait()
        return SpanExportResult.SUCCESS


def test_spans_that_nobody_takes_are_counted_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    provider, processor = providers.made(Refusing, "http://user:secret@collector:4318")
    for _ in range(3):
        provider.get_tracer("t").start_span("s").end()
        assert providers.flush(provider, 5)
    assert processor.dropped == 3
    [warning] = caplog.records
    assert warning.getMessage().startswith("spans cannot be sent to http://user:***@collector:4318: they are dropped.")


def test_a_full_queue_drops_spans_and_counts_them(caplog: pytest.LogCaptureFixture) -> None:
    exporter = Blocking()
    provider, processor = providers.made(lambda: exporter, "nowhere", max_queue_size=4, max_export_batch_size=2)
    tracer = provider.get_tracer("t")
    began = time.monotonic()
    for _ in range(20):
        tracer.start_span("s").end()
    assert not providers.flush(provider, 0.05)
    assert time.monotonic() - began < 2
    exporter.free.set()
    wait_until(lambda: providers.flush(provider, 5), description="the rest to be sent")
    assert 10 <= processor.dropped <= 18
    assert not caplog.records
