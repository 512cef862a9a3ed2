"""docs/events.md against what runs on workers really write; and each event stands in the step that it tells of."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from graflow_celery import Run, RunStatus, Settings, TaskExecutionContext, parallel, task, workflow
from graflow_celery.celery_backend.waiting import OBSTACLES
from graflow_celery.ports import EventRecord
from graflow_celery.runs import client_runtime
from graflow_celery.testing import wait_until
from graflow_celery.workflows import WorkflowContext
from tests.e2e.markdown import Page

ROOT = Path(__file__).resolve().parents[2]
PAGE = Page(ROOT / "docs" / "events.md")
pytestmark = pytest.mark.workers


def documented() -> dict[str, set[str]]:
    """The fields of each event, as the page's table has them."""
    rows = PAGE.rows_after("| event |")
    return {
        name: set(re.findall(r"`(\w+)`", fields)) for names, _, fields in rows for name in re.findall(r"`(\w+)`", names)
    }


@task(inject_context=True, max_retries=1)
def flaky(context: TaskExecutionContext) -> list[int]:
    if context.retry_count == 0:
        raise ValueError("once")
    return [1, 2, 3]


@task
def score(item: int) -> int:
    if item == 3:
        raise ValueError("three")
    return item


@task(inject_context=True)
def grows(context: TaskExecutionContext) -> None:
    context.next_task(added)


@task
def added() -> int:
    return 1


@task(inject_context=True)
def again(context: TaskExecutionContext) -> None:
    context.checkpoint()
    if context.cycle_count < 2:
        context.next_iteration()


@task(inject_context=True)
def asks(context: TaskExecutionContext) -> bool:
    return context.request_approval("go on?", timeout=0.5)


@task(inject_context=True)
def jumps(context: TaskExecutionContext) -> None:
    context.next_task(last, goto=True)


@task
def passed_over() -> None: ...


@task
def last() -> str:
    return "done"


def everything() -> WorkflowContext:
    """Tasks that are retried, asked, iterated, mapped, added, skipped; a group; a checkpoint."""
    with workflow("everything") as wf:
        sides = parallel(again, asks).set_group_name("sides")
        scored = score.map().with_execution(policy="best_effort")
        flaky >> scored >> grows >> sides >> jumps >> passed_over >> last
    return wf


@task
def numbers() -> list[int]:
    return [0, 1, 2]


@task
def fails() -> None:
    raise ValueError("no")


@task
def follows() -> None: ...


def test_each_event_is_documented_with_the_fields_that_it_has(graflow_settings: Settings) -> None:
    run = everything().submit(settings=graflow_settings)
    wait_until(run.feedback, description="somebody to be asked")
    assert run.wait(timeout=30) is RunStatus.WAITING
    run.answer(run.feedback()[0].feedback_id, True)
    assert run.wait(timeout=30, to_end=True) is RunStatus.SUCCEEDED
    with workflow("failing") as wf:
        fails >> follows
    failed = wf.submit(settings=graflow_settings)
    assert failed.wait(timeout=30) is RunStatus.FAILED
    failed.retry_failed()
    assert failed.wait(timeout=30) is RunStatus.FAILED
    assert [record["event"] for record in failed.events()].count("run_started") == 1
    cancelled = wf.submit(settings=graflow_settings)
    cancelled.cancel("enough")

    told = [record for one in (run, failed, cancelled) for record in one.events()]
    table = documented()
    for record in told:
        name = str(record["event"])
        assert name in table, f"{name} is not documented"
        undocumented = {field for field in record if field not in ("event", "at")} - table[name]
        assert not undocumented, f"{name} has {undocumented}, of which docs/events.md says nothing"
    seen = {str(record["event"]) for record in told}
    expected = {
        *("run_submitted", "run_started", "run_waiting", "run_succeeded", "run_failed", "run_retried", "run_cancelled"),
        *("node_queued", "node_started", "node_succeeded", "node_failed", "node_retried", "node_iterated"),
        *("node_waiting", "node_skipped", "group_opened", "map_expanded", "group_succeeded", "checkpoint_taken"),
        *("feedback_requested", "feedback_expired", "feedback_answered", "cancel_requested"),
    }
    assert expected <= seen, expected - seen
    check_times(list(run.events()))


def check_times(records: list[EventRecord]) -> None:
    """Times go forward; durations, counts, workers and attempts are those of what happened."""
    ats = [float(record["at"]) for record in records]
    assert ats == sorted(ats)
    by_name: dict[str, list[EventRecord]] = {}
    for record in records:
        by_name.setdefault(str(record["event"]), []).append(record)
    assert [record["count"] for record in by_name["map_expanded"]] == [3]
    assert {record["node"]: record.get("count", 0) for record in by_name["group_opened"]}["sides"] == 2
    closed = next(record for record in by_name["group_succeeded"] if record["node"] == "sides")
    opened = next(record for record in by_name["group_opened"] if record["node"] == "sides")
    assert float(closed["duration"]) == pytest.approx(float(closed["at"]) - float(opened["at"]), abs=0.002)
    assert all(record["worker"] and record["attempt"] >= 1 for record in by_name["node_started"])
    retried = by_name["node_retried"][0]
    after = records[records.index(retried) + 1]
    assert (after["event"], after["node"], after["attempt"]) == ("node_queued", "flaky", 2)
    assert len(by_name["run_started"]) == 1


def test_a_stream_expires_with_its_run(graflow_settings: Settings) -> None:
    run = everything_but_people(graflow_settings)
    runtime = client_runtime(graflow_settings)
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    left = runtime.client.ttl(runtime.keys.run(run.id).events)
    assert 0 < left <= graflow_settings.result_ttl


def test_the_table_has_every_event_that_the_code_writes() -> None:
    source = "\n".join(
        path.read_text() for path in (ROOT / "graflow_celery").rglob("*") if path.suffix in (".py", ".lua")
    )
    verbs = "submitted|started|resumed|retried|stalled|expired|aborted|queued|lost|returned|iterated|waiting|reentered"
    verbs += "|skipped|opened|expanded|requested|answered|taken|exceeded|out|differs|missing|refuses"
    kinds = "run|node|group|map|feedback|checkpoint|cancel|steps|carried|code|blobs|workers|store"
    written = set(re.findall(rf"""["']((?:{kinds})_(?:{verbs}))["']""", source))
    table = set(documented())
    prose = {name for name in PAGE.codes if name in OBSTACLES}
    assert prose == OBSTACLES
    assert written - table - OBSTACLES == set()
    assert {name for name in table if name not in source and not re.match(r"(run|node|group)_", name)} == set()


def test_waiting_with_progress_shows_lines_and_a_summary(
    graflow_settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.get(everything_but_people(graflow_settings).id, graflow_settings)
    assert run.wait(timeout=30, progress=True) is RunStatus.SUCCEEDED
    out = capsys.readouterr().out
    assert "score: 3 members" in out
    assert f"succeeded  quick  run {run.id}" in out
    assert re.search(r"^  path +numbers .* > score\[\d\] ", out, re.MULTILINE)
    assert re.search(r"^  waiting +\S+ m?s for workers, \S+ m?s at barriers, of ", out, re.MULTILINE)
    seen: list[Any] = []
    assert run.wait(timeout=30, progress=seen.append) is RunStatus.SUCCEEDED
    assert seen[0]["event"] == "run_submitted"
    html = run._repr_html_()
    assert "3/3" in html
    assert run.id in html
    assert html.count("<rect") == 3


def everything_but_people(settings: Settings) -> Run:
    with workflow("quick") as wf:
        numbers >> score.map()
    return wf.submit(settings=settings)
