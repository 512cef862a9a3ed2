"""An OTLP/HTTP collector for tests: keeps the spans that it is sent."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from graflow_celery.testing import wait_until

OK, ERROR = "ok", "error"


@dataclass(frozen=True)
class Seen:
    """A span that arrived. Ids are hex digits; ``parent`` is empty for a root; times are in nanoseconds."""

    name: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    status: str
    message: str
    scope: str
    service: dict[str, Any]
    attributes: dict[str, Any]
    events: tuple[str, ...]
    links: tuple[str, ...]


@dataclass
class Collector:
    """What arrived, by ``POST``; ``headers`` and ``paths`` are those of the requests."""

    url: str
    spans: list[Seen] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def of(self, trace: str) -> list[Seen]:
        return [span for span in list(self.spans) if span.trace == trace]

    def whole(self, trace: str, count: int) -> list[Seen]:
        """The spans of a trace, of which there have to be so many: waits for them, but not for more."""
        wait_until(lambda: len(self.of(trace)) >= count, timeout=20, description=f"{count} spans of the trace")
        return self.of(trace)


def parents(named: Mapping[str, Seen]) -> dict[str, str]:
    """The name of each span's parent, empty for a root."""
    names = {span.id: name for name, span in named.items()}
    return {name: names[span.parent] if span.parent else "" for name, span in named.items()}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a port of its own, for the time of the block."""
    made: Collector

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            made.paths.append(self.path)
            made.headers.append({name.lower(): value for name, value in self.headers.items()})
            made.spans.extend(read(body))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            return None

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Collector(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()


def read(body: bytes) -> Iterator[Seen]:
    """The spans of an export request."""
    request = ExportTraceServiceRequest.FromString(body)
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Seen(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    ERROR if span.status.code == 2 else OK,
                    span.status.message,
                    scope.scope.name,
                    _attributes(resource.resource.attributes),
                    _attributes(span.attributes),
                    tuple(event.name for event in span.events),
                    tuple(link.span_id.hex() for link in span.links),
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind)
