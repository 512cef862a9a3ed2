"""Spans that are made when they have ended: nobody sees a difference to the SDK's own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from graflow_celery.core.events import NodeFailed, NodeSucceeded
from graflow_celery.core.state import Applied
from graflow_celery.ports import Attempt, Outcome, RunRef
from graflow_celery.tracing import OpenTelemetryTracer, providers, trace_id_of
from graflow_celery.tracing.following import REPORTS, Follower, Told
from graflow_celery.tracing.identity import span_id_of
from tests.unit.tracing.test_story import plan

RUN = RunRef("run", "graph")


@dataclass
class Kept(SpanExporter):
    """An exporter of a provider of ours; ``ended`` sends what there is first."""

    spans: list[ReadableSpan] = field(default_factory=list)
    provider: providers.Provider = field(init=False)
    counting: providers.Counting = field(init=False)

    def __post_init__(self) -> None:
        self.provider, self.counting = providers.made(lambda: self, "here", max_queue_size=600)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS

    def ended(self) -> dict[str, ReadableSpan]:
        assert providers.flush(self.provider, 5)
        return {span.name: span for span in self.spans}


def attempt(
    tracer: OpenTelemetryTracer, body: Callable[[], Any], error: BaseException | None = None, number: int = 1
) -> None:
    follower = Follower(tracer, nothing, {})
    span = follower.begin(Attempt(RUN, plan(), "a", number, "w1"))
    span.call(body)
    event = NodeSucceeded("a", number) if error is None else NodeFailed("a", number, "ValueError: no", True, 0, 0.5)
    outcome = Outcome(duration=0.5) if error is None else Outcome(error=error, duration=0.5)
    span.end(event, outcome, Applied(ended_node=True))


def nothing(run: RunRef) -> Told:
    raise LookupError(run.id)


def facts(span: ReadableSpan) -> dict[str, Any]:
    """What a span says, but for its times and its process."""
    context, parent = span.context, span.parent
    assert context is not None
    assert parent is not None
    scope, links = span.instrumentation_scope, [(link.context, dict(link.attributes or {})) for link in span.links]
    ids = [(one.trace_id, one.span_id, one.is_remote, one.trace_flags) for one in (context, parent)]
    told = (span.name, span.kind, span.status.status_code, scope and scope.name, len(span.events))
    return {"ids": ids, "told": told, "links": links, "attributes": dict(span.attributes or {})}


@pytest.mark.parametrize("error", [None, ValueError("no")])
@pytest.mark.parametrize("number", [1, 2])
def test_it_says_what_the_sdk_s_own_would(error: ValueError | None, number: int) -> None:
    theirs, ours = InMemorySpanExporter(), Kept()
    provider = TracerProvider(resource=Resource({}))
    provider.add_span_processor(SimpleSpanProcessor(theirs))
    attempt(OpenTelemetryTracer(provider), dict, error, number)
    attempt(OpenTelemetryTracer(ours.provider), dict, error, number)
    [expected] = theirs.get_finished_spans()
    found = ours.ended()["attempt a"]
    assert facts(found) == facts(expected)
    assert found.start_time is not None
    assert found.end_time is not None
    assert 0 <= found.end_time - found.start_time < 5e9
    assert found.resource is ours.provider.resource


def test_what_the_task_s_code_makes_nests_under_it() -> None:
    kept = Kept()
    own = kept.provider.get_tracer("user's")
    attempt(OpenTelemetryTracer(kept.provider), lambda: own.start_span("query").end())
    named = kept.ended()
    query, above = named["query"], named["attempt a"].context
    assert query.parent is not None
    assert above is not None
    assert (query.parent.trace_id, query.parent.span_id) == (above.trace_id, above.span_id)
    assert (f"{above.trace_id:032x}", f"{above.span_id:016x}") == (
        trace_id_of("run"),
        span_id_of(RUN, "attempt", "a", 1),
    )


def test_what_the_task_s_code_says_to_it_is_kept() -> None:
    def body() -> None:
        here = trace.get_current_span()
        assert here.is_recording()
        here.set_attribute("customer", 17)
        here.add_event("half way")
        assert here.name == "attempt a"  # type: ignore[attr-defined]  # as of the SDK's spans

    kept = Kept()
    attempt(OpenTelemetryTracer(kept.provider), body)
    found = kept.ended()["attempt a"]
    assert found.attributes is not None
    assert (found.attributes["customer"], found.attributes["graflow.status"]) == (17, "succeeded")
    assert [event.name for event in found.events] == ["half way"]
    assert len(kept.spans) == 1


def test_it_becomes_one_span_though_many_threads_ask_at_once() -> None:
    def body() -> None:
        here, ready = trace.get_current_span(), threading.Barrier(8)

        def say(number: int) -> None:
            ready.wait()
            here.set_attribute(f"thread{number}", True)

        threads = [threading.Thread(target=say, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    kept = Kept()
    attempt(OpenTelemetryTracer(kept.provider), body)
    found = kept.ended()["attempt a"].attributes
    assert found is not None
    assert {f"thread{number}" for number in range(8)} <= set(found)
    assert len(kept.spans) == 1


def test_whoever_looks_at_spans_sees_them_begin() -> None:
    class Looking(SpanProcessor):
        def __init__(self) -> None:
            self.began: list[str] = []

        def on_start(self, span: Any, parent_context: Any = None) -> None:
            self.began.append(span.name)

    kept, looking = Kept(), Looking()
    kept.provider.add_span_processor(looking)
    attempt(OpenTelemetryTracer(kept.provider), dict)
    assert looking.began == ["attempt a"]
    assert sorted(kept.ended()) == ["attempt a"]


def test_a_long_story_is_told_no_faster_than_it_can_be_sent() -> None:
    """Five times as many spans as the queue has room for."""
    events: list[dict[str, Any]] = [{"event": "run_submitted", "at": 0.0}]
    for number in range(3000):
        ended = {"node": f"n{number}", "attempt": 1, "at": 2.0}
        events += [{"event": "node_started", **ended}, {"event": "node_succeeded", **ended}]
    events.append({"event": "run_succeeded", "at": 3.0})
    kept, known = Kept(), plan()
    told = Told("w", events, lambda _: known)
    Follower(OpenTelemetryTracer(kept.provider), lambda _: told, {}).ended(RUN)
    REPORTS.farewell(20.0)
    kept.ended()
    assert len(kept.spans) == 3001
    assert kept.counting.dropped == 0
