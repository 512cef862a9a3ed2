"""Runs on workers, traced: what arrives at a collector, and that a run notices nothing of it."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from graflow_celery import RunStatus, TaskExecutionContext, parallel, task, workflow
from graflow_celery.celery_backend.app import create_app
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.metrics import register
from graflow_celery.ports import RunRef
from graflow_celery.runs import client_runtime
from graflow_celery.testing import embedded_cluster, wait_until
from graflow_celery.tracing import OpenTelemetryTracer, trace_id_of
from graflow_celery.tracing.following import REPORTS
from graflow_celery.tracing.identity import span_id_of, traceparent_of
from tests.bench.content.flows import long_names
from tests.collector import ERROR, Collector, Seen, collecting, parents
from tests.e2e.idle import idle, loaded
from tests.large_messages import LARGEST

pytestmark = pytest.mark.workers

ROOT = Path(__file__).parents[2]
USER = "a library of the user"


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as started:
        yield started


@pytest.fixture(scope="module")
def cluster(collector: Collector) -> Iterator[EmbeddedCluster]:
    """Two processes in one worker; their settings trace nothing: the runs say that they are traced."""
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_SERVICE_NAME": "workers",
        "PYTHONPATH": str(ROOT),
    }
    # The module has the application's own instrumentation of Celery at work, and a task of the application.
    with embedded_cluster(env=variables, arguments=["--include", "tests.e2e.instrumented"]) as started:
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
    assert parents(named) == {
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


def test_without_events_the_tree_is_the_same(collector: Collector, client: OpenTelemetryTracer) -> None:
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "PYTHONPATH": str(ROOT)}
    with embedded_cluster(env=variables, events="off") as own:
        with workflow("silent", tracer=client) as wf:
            load >> (wait_a_little | fail_once).set_group_name("both")
        run = wf.submit(settings=own.settings)
        assert run.wait(30) is RunStatus.SUCCEEDED
        assert "node_started" not in {event["event"] for event in run.events()}
        named = by_name(collector.whole(trace_id_of(run.id), 11))
        found = parents(named)
        assert {name: found[name] for name in ("group both", "node load", "node fail_once", "attempt fail_once 2")} == {
            "group both": "run silent",
            "node load": "run silent",
            "node fail_once": "group both",
            "attempt fail_once 2": "node fail_once",
        }
        whole = named["run silent"]
        assert whole.start <= named["group both"].start <= named["group both"].end <= whole.end


@task
def rest(notes: str) -> None:
    Path(notes, "began").touch()
    threading.Event().wait(30)


def test_a_cancelled_run_is_told_of_by_whoever_cancelled_it(cluster: EmbeddedCluster, tmp_path: Path) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    with workflow("given up", tracer=OpenTelemetryTracer(provider)) as wf:
        rest(task_id="long", notes=str(tmp_path)) >> load
    run = wf.submit(settings=cluster.settings)
    wait_until((tmp_path / "began").exists, description="the task to begin")
    run.cancel("enough")
    REPORTS.farewell()
    told = {span.name: span for span in kept.get_finished_spans()}
    assert sorted(told) == ["attempt long", "node long", "run given up", "submit given up"]
    attempt, whole = told["attempt long"], told["run given up"]
    assert attempt.attributes is not None
    assert attempt.attributes["graflow.status"] == "cancelled"
    assert whole.status.description == "enough"
    assert told["submit given up"].parent is not None
    assert told["submit given up"].parent.span_id == whole.context.span_id


def test_a_retried_run_goes_on_in_its_trace(
    cluster: EmbeddedCluster, collector: Collector, client: OpenTelemetryTracer, tmp_path: Path
) -> None:
    with workflow("again", tracer=client) as wf:
        load >> needs_a_file(task_id="needy", path=str(tmp_path / "file"))
    run = wf.submit(settings=cluster.settings)
    assert run.wait(30) is RunStatus.FAILED
    collector.whole(trace_id_of(run.id), 6)
    (tmp_path / "file").touch()
    run.retry_failed()
    assert run.wait(30) is RunStatus.SUCCEEDED
    spans = collector.whole(trace_id_of(run.id), 9)
    first, second = [span for span in spans if span.name == "run again"]
    assert (first.status, second.status) == (ERROR, "ok")
    assert second.links == (first.id,)
    below = [span.name for span in spans if span.parent == second.id]
    assert below == ["node needy"]


@task
def needs_a_file(path: str) -> None:
    if not Path(path).exists():
        raise FileNotFoundError(path)


# --- messages -----------------------------------------------------------------------------------------


def test_a_message_names_its_span_and_stays_under_a_kilobyte(
    cluster: EmbeddedCluster, client: OpenTelemetryTracer
) -> None:
    wf = long_names("messages", 100)
    wf.tracer = client
    queue = f"unserved-{secrets.token_hex(4)}"
    unserved = cluster.settings.model_copy(update={"queue": queue})
    run = wf.submit(settings=unserved)
    store = client_runtime(unserved).client
    messages = [bytes(message) for message in store.lrange(queue, 0, -1)]
    run.cancel()
    store.delete(queue)
    assert messages
    assert max(map(len, messages)) <= LARGEST
    reference = RunRef(run.id, run.graph_hash)
    for message in messages:
        told = json.loads(message)
        node = json.loads(told["body"])[0][2]
        assert told["headers"]["traceparent"] == traceparent_of(reference, "node", node)


# --- the application's own instrumentation ------------------------------------------------------------


def test_the_instrumentation_of_the_application_traces_nothing_once_more(
    cluster: EmbeddedCluster, collector: Collector, client: OpenTelemetryTracer
) -> None:
    with workflow("instrumented", tracer=client) as wf:
        load >> (wait_a_little | fail_once).set_group_name("both")
    run = wf.submit(settings=cluster.settings)
    assert run.wait(30) is RunStatus.SUCCEEDED
    collector.whole(trace_id_of(run.id), 11)
    create_app(cluster.settings).send_task("applications.own")
    name = "run/applications.own"
    wait_until(lambda: name in [span.name for span in list(collector.spans)], description="the application's own span")
    theirs = {span.name for span in collector.spans if span.scope == "opentelemetry.instrumentation.celery"}
    assert theirs == {name}
    assert len(collector.of(trace_id_of(run.id))) == 11


# --- settings, and the process of a client ------------------------------------------------------------

CLIENT = """
from graflow_celery import task, workflow

@task
def one(): return 1

@task
def two(one): return 2

with workflow("from a client") as wf:
    one >> two
run = wf.submit()
run.wait(30)
print(run.id)
"""


def test_by_settings_client_and_workers_are_in_one_trace(cluster: EmbeddedCluster, collector: Collector) -> None:
    variables = {
        **os.environ,
        **cluster.env,
        "GRAFLOW_CELERY_TRACING": "otel",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_SERVICE_NAME": "client",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", CLIENT], env=variables, capture_output=True, text=True, check=True, timeout=60
    )
    spans = collector.whole(trace_id_of(done.stdout.strip()), 6)
    assert sorted({span.service["service.name"] for span in spans}) == ["client", "workers"]
    assert {span.name for span in spans if span.service["service.name"] == "client"} == {"submit from a client"}
    [whole] = [span for span in spans if not span.parent]
    assert whole.name == "run from a client"


# --- where nobody collects, and where nothing is traced -----------------------------------------------


def test_a_collector_that_is_down_holds_nothing_up(client: OpenTelemetryTracer) -> None:
    nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "PYTHONPATH": str(ROOT)}
    with embedded_cluster(env=nowhere) as own:
        with workflow("alone", tracer=client) as wf:
            (load | wait_a_little).set_group_name("g") >> one_more
        began = time.monotonic()
        for _ in range(5):
            assert wf.submit(settings=own.settings).wait(30) is RunStatus.SUCCEEDED
        assert time.monotonic() - began < 10
        wait_until(lambda: dropped(own) >= 5 * 3, timeout=20, description="the metric to tell of each attempt")
        [worker] = own.workers
        wait_until(lambda: "spans cannot be sent" in worker.process.output(), timeout=20, description="the warning")
        began = time.monotonic()
        own.workers.stop(20)
        assert time.monotonic() - began < 10
        told = [line for line in worker.process.output().splitlines() if "spans cannot be sent" in line]
        # One in each process of the pool that had spans, and in the main one.
        assert 1 <= len(told) <= 3
        assert "Failed to export" not in worker.process.output()
        assert "Transient error" not in worker.process.output()


def dropped(cluster: EmbeddedCluster) -> float:
    """What Prometheus is told."""
    registry = CollectorRegistry()
    register(registry, client_runtime(cluster.settings))
    return registry.get_sample_value("graflow_spans_dropped_total") or 0.0


@task
def one_more() -> None: ...


def test_off_it_costs_nothing_and_on_no_look_at_the_store_for_a_node(client: OpenTelemetryTracer) -> None:
    """What the server counts for the same group, untraced and traced: what differs is a few calls for the run."""
    members = 60
    # One member a message: else as many travel together as they seem to be worth.
    with embedded_cluster(env={"PYTHONPATH": str(ROOT)}, batch=1) as own:
        store = client_runtime(own.settings).client

        def calls(tracer: OpenTelemetryTracer | None) -> Counter[str]:
            with workflow("counted", tracer=tracer) as wf:
                parallel(*(idle(task_id=f"m{number}") for number in range(members))) >> loaded
            counted = [Counter[str](), Counter[str]()]
            for count in counted:
                stats = store.info("commandstats")
                count.update({name: values["calls"] for name, values in stats.items() if name in COUNTED})
                if count is counted[0]:
                    run = wf.submit(settings=own.settings)
                    assert run.wait(60) is RunStatus.SUCCEEDED
                    assert bool(run.result("loaded")) == (tracer is not None)
            return counted[1] - counted[0]

        calls(None)
        off, on = calls(None), calls(client)
        assert abs(on.total() - off.total()) < members / 2, f"{off} {on}"


#: Of the server's commands, those of a run; not beats, nor what those who wait ask again and again.
COUNTED = frozenset(f"cmdstat_{name}" for name in ("evalsha", "hmget", "hget", "hgetall", "xrange", "lpush", "hscan"))
