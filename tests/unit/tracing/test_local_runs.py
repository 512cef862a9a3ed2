"""Runs in threads, traced; and tracers that are broken."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from graflow_celery import TaskExecutionContext, WorkflowContext, task, workflow
from graflow_celery.tracing import OpenTelemetryTracer, following
from graflow_celery.tracing.following import REPORTS
from tests.collector import collecting

Tree = dict[str, list[str]]


class Kept:
    """A provider that keeps its spans."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = provider or TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def tree(self) -> Tree:
        """The names of spans under the name of each."""
        REPORTS.farewell()
        spans = self.exporter.get_finished_spans()
        names = {span.context.span_id: span.name for span in spans if span.context is not None}
        tree: Tree = {}
        for span in spans:
            parent = "" if span.parent is None else names[span.parent.span_id]
            tree.setdefault(parent, []).append(span.name)
        return {name: sorted(children) for name, children in tree.items()}


@task
def a() -> int:
    return 1


@task
def b() -> int:
    return 2


@task(inject_context=True)
def add(context: TaskExecutionContext) -> None:
    context.next_task(a(task_id="added"))


def both(tracer: object) -> WorkflowContext:
    with workflow("w", tracer=tracer) as wf:
        (a | b).set_group_name("g")
    return wf


def test_a_local_run_is_the_same_tree() -> None:
    kept = Kept()
    both(OpenTelemetryTracer(kept.provider)).execute()
    assert kept.tree() == {
        "": ["run w"],
        "run w": ["group g"],
        "group g": ["node a", "node b"],
        "node a": ["attempt a"],
        "node b": ["attempt b"],
    }


def test_tasks_that_a_task_added_are_under_it() -> None:
    kept = Kept()
    with workflow("w", tracer=OpenTelemetryTracer(kept.provider)) as wf:
        add >> b
    wf.execute()
    tree = kept.tree()
    [group] = [name for name in tree["node add"] if name.startswith("group")]
    assert tree["node add"] == ["attempt add", group]
    assert tree[group] == ["node added"]
    assert tree["run w"] == ["node add", "node b"]


def test_members_of_a_mapped_task_are_under_it() -> None:
    kept = Kept()

    @task
    def items() -> list[int]:
        return [1, 2]

    @task
    def score(item: int) -> int:
        return item

    with workflow("w", tracer=OpenTelemetryTracer(kept.provider)) as wf:
        items >> score.map()
    wf.execute()
    assert kept.tree()["group score"] == ["node score", "node score"]


def test_an_awaited_local_run_is_traced() -> None:
    kept = Kept()
    asyncio.run(both(OpenTelemetryTracer(kept.provider)).execute_async())
    assert kept.tree()["run w"] == ["group g"]


def test_a_run_that_is_made_inside_of_a_span_is_linked_to_it() -> None:
    kept = Kept()
    with kept.provider.get_tracer("web").start_as_current_span("request") as request:
        both(OpenTelemetryTracer(kept.provider)).execute()
    kept.tree()
    [whole] = [span for span in kept.exporter.get_finished_spans() if span.name == "run w"]
    assert [link.context.span_id for link in whole.links] == [request.get_span_context().span_id]
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_trace_is_sampled_as_a_whole() -> None:
    kept = Kept(TracerProvider(sampler=ParentBased(ALWAYS_OFF)))
    both(OpenTelemetryTracer(kept.provider)).execute()
    assert kept.tree() == {}


class Broken(OpenTelemetryTracer):
    def title(self, part: object) -> str:
        raise RuntimeError("a tracer that is broken")


def test_a_broken_tracer_breaks_no_run_and_is_told_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following.FAILURES, "count", 0)
    assert both(Broken(TracerProvider())).execute() == {"a": 1, "b": 2}
    REPORTS.farewell()
    [record] = caplog.records
    assert record.getMessage() == "tracing failed, and runs go on without: RuntimeError: a tracer that is broken"
    assert following.FAILURES.count >= 3


SCRIPT = """
from graflow_celery import task, workflow
@task
def a(): return 1
@task
def b(a): return 2
with workflow("w") as wf: a >> b
wf.execute()
"""


@pytest.mark.parametrize("where", ["variable", "file"])
def test_by_the_setting_a_local_run_is_traced(where: str, tmp_path: Path) -> None:
    (tmp_path / "graflow.toml").write_text('tracing = "otel"\n', encoding="utf-8")
    said = {"GRAFLOW_CELERY_TRACING": "otel"}
    chosen = said if where == "variable" else {"GRAFLOW_CELERY_CONFIG": str(tmp_path / "graflow.toml")}
    with collecting() as collector:
        variables = {**os.environ, **chosen, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}
        subprocess.run([sys.executable, "-c", SCRIPT], env=variables, check=True, timeout=60)
        names = sorted(span.name for span in collector.spans)
    assert names == ["attempt a", "attempt b", "node a", "node b", "run w"]


def test_nothing_of_it_is_loaded_where_nothing_is_traced() -> None:
    script = """
import sys
from graflow_celery import task, workflow
@task
def a(): return 1
@task
def b(a): return 2
with workflow("w") as wf: a >> b
wf.execute()
import graflow_celery.tracing, graflow_celery.distributed, graflow_celery.celery
# redis-py loads the API and the SDK's metrics by itself, where they are installed.
kinds = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "langfuse")
print([name for name in sys.modules if name.startswith(kinds)])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


def test_without_the_library_the_error_names_the_extra() -> None:
    script = """
import sys
sys.modules["opentelemetry"] = None
from graflow_celery import tracing
try:
    tracing.OpenTelemetryTracer
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("ExtraMissingError opentelemetry is not installed here. Install it: pip install")
    assert "graflow-celery[otel]" in done.stdout


@pytest.mark.parametrize("tracer", ["OpenTelemetryTracer()", "LangfuseTracer('pk', 'sk-secret', 'http://127.0.0.1:1')"])
def test_a_process_ends_in_time_though_nobody_collects(tracer: str) -> None:
    script = f"""
from graflow_celery import task, workflow
from graflow_celery.tracing import LangfuseTracer, OpenTelemetryTracer
@task
def a(): return 1
@task
def b(a): return 2
with workflow("w", tracer={tracer}) as wf: a >> b
print(wf.execute())
"""
    variables = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout == "2\n"
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 2
    assert all(line.startswith(("spans cannot be sent to", "not all spans could be sent")) for line in lines)
