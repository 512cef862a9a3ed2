"""Runs on workers, traced: what arrives at a collector, and that a run notices nothing of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator, Mapping

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from graflow_celery import RunStatus, TaskExecutionContext, task, workflow
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.ports import RunRef
from graflow_celery.testing import embedded_cluster
from graflow_celery.tracing import OpenTelemetryTracer, trace_id_of
from graflow_celery.tracing.identity import span_id_of
from tests.collector import ERROR, Collector, Seen, collecting

pytestmark = pytest.mark.workers

USER = "a library of the user"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as started:
        yield started


@pytest.fixture(scope="module")
def cluster(collector: Collector) -> Iterator[EmbeddedCluster]:
    """Two processes in one worker; their settings trace nothing: the runs say that they are traced."""
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_SERVICE_NAME": "workers"}
    with embedded_cluster(env=variables) as started:
        yield started


@pytest.fixture
def client() -> OpenTelemetryTracer:
    """A tracer whose client keeps its own spans to itself."""
    return OpenTelemetryTracer(TracerProvider())


def by_name(spans: list[Seen]) -> Mapping[str, Seen]:
    return {f"{span.name} {span.attributes.get('graflow.attempt', '')}".strip(): span for span in spans}


@task
def load() -> list[int]:
    with trace.get_tracer(USER).start_as_current_span("query"):
        return [1, 2]


@task
async def wait_a_little() -> int:
    with trace.get_tracer(USER).start_as_current_span("await"):
        await asyncio.sleep(0)
    return 1


@task(inject_context=True, max_retries=2)
def fail_once(context: TaskExecutionContext) -> int:
    if context.retry_count == 0:
        raise ValueError("not yet")
    return 2


@task(inject_context=True)
def die_once(context: TaskExecutionContext) -> int:
    if context.idempotency_key.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return 3


@task
def always_fail() -> None:
    raise LookupError("nothing there")


def test_a_run_is_one_trace_of_run_group_node_and_attempt(
    cluster: EmbeddedCluster, collector: Collector, client: OpenTelemetryTracer
) -> None:
    with workflow("etl", tracer=client) as wf:
        load >> (wait_a_little | fail_once).set_group_name("both")
    run = wf.submit(settings=cluster.settings)
    assert run.wait(30) is RunStatus.SUCCEEDED
    spans = collector.whole(trace_id_of(run.id), 11)
    named = by_name(spans)
    assert sorted(named) == [
        "attempt fail_once 1",
        "attempt fail_once 2",
        "attempt load 1",
        "attempt wait_a_little 1",
        "await",
        "group both",
        "node fail_once",
        "node load",
        "node wait_a_little",
        "query",
        "run etl",
    ]
    parents = {
        name: next((other for other, it in named.items() if it.id == span.parent), "") for name, span in named.items()
    }
    assert parents == {
        "run etl": "",
        "group both": "run etl",
        "node load": "run etl",
        "node wait_a_little": "group both",
        "node fail_once": "group both",
        "attempt load 1": "node load",
        "attempt wait_a_little 1": "node wait_a_little",
        "attempt fail_once 1": "node fail_once",
        "attempt fail_once 2": "node fail_once",
        "query": "attempt load 1",
        "await": "attempt wait_a_little 1",
    }
    reference = RunRef(run.id, run.graph_hash)
    assert named["run etl"].id == span_id_of(reference, "run")
    assert named["attempt load 1"].id == span_id_of(reference, "attempt", "load", 1)
    first, second = named["attempt fail_once 1"], named["attempt fail_once 2"]
    assert (first.status, first.message, first.events) == (ERROR, "ValueError: not yet", ("exception",))
    assert second.links == (first.id,)
    assert named["query"].scope == USER
    assert second.attributes["graflow.run.id"] == run.id
    assert second.attributes["graflow.status"] == "succeeded"
    assert second.service["service.name"] == "workers"
    whole = named["run etl"]
    assert whole.start <= named["group both"].start <= named["group both"].end <= whole.end


def test_an_attempt_that_was_lost_is_told_of_by_others(
    cluster: EmbeddedCluster, collector: Collector, client: OpenTelemetryTracer
) -> None:
    with workflow("lossy", tracer=client) as wf:
        die_once >> load
    run = wf.submit(settings=cluster.settings)
    assert run.wait(30) is RunStatus.SUCCEEDED
    named = by_name(collector.whole(trace_id_of(run.id), 7))
    first, second = named["attempt die_once 1"], named["attempt die_once 2"]
    assert first.status == ERROR
    assert "died" in first.message
    assert first.attributes["graflow.status"] == "lost"
    assert second.links == (first.id,)
    assert first.parent == second.parent == named["node die_once"].id
    assert named["node die_once"].start <= first.start < first.end <= second.start + 10**7


def test_a_run_that_fails_says_why(cluster: EmbeddedCluster, collector: Collector, client: OpenTelemetryTracer) -> None:
    with workflow("broken", tracer=client) as wf:
        (load | always_fail).set_group_name("some")
    run = wf.submit(settings=cluster.settings)
    assert run.wait(30) is RunStatus.FAILED
    named = by_name(collector.whole(trace_id_of(run.id), 7))
    assert {name for name, span in named.items() if span.status == ERROR} == {
        "run broken",
        "group some",
        "node always_fail",
        "attempt always_fail 1",
    }
    assert named["attempt always_fail 1"].events == ("exception",)
