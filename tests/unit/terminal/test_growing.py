"""What is known of a run only while it goes on: members of mapped tasks, added tasks, rates, and what is left."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from rich.console import Console

from graflow_celery.core.expr import ParallelGroup
from graflow_celery.core.plan import Plan
from graflow_celery.core.task import Task, task
from graflow_celery.local import LocalRun
from graflow_celery.ports import EventRecord
from graflow_celery.terminal.live import LogLines
from graflow_celery.terminal.progress import ProgressModel
from graflow_celery.terminal.screen import Row, Screen, tree
from graflow_celery.terminal.summary import as_json, facts, path, waiting
from graflow_celery.terminal.wording import counts, rate
from graflow_celery.workflows import WorkflowContext, workflow

NOW = time.time()


def mapped() -> WorkflowContext:
    @task
    def score(item: int) -> int:
        return item

    with workflow("mapped") as wf:
        Task("items") >> score.map() >> Task("last")
    return wf


def feed(model: ProgressModel, event: str, node: str = "", at: float = 0.0, **fields: Any) -> None:
    model.feed({"event": event, "at": NOW + at, **({"node": node} if node else {}), **fields})


def counting(members: int) -> ProgressModel:
    """A mapped task of so many members: the first three ended, one of them failed, the fourth runs."""
    model = ProgressModel(mapped().plan())
    feed(model, "run_submitted")
    feed(model, "node_succeeded", "items", duration=0.5)
    feed(model, "group_opened", "score")
    feed(model, "map_expanded", "score", count=members)
    for index, verb in enumerate(("succeeded", "failed", "succeeded")):
        feed(model, "node_started", f"score[{index}]", at=index, worker="w1", attempt=1)
        feed(model, f"node_{verb}", f"score[{index}]", at=index + 1, duration=1.0, reason="ValueError: x")
    feed(model, "node_started", "score[3]", at=3, worker="w1", attempt=1)
    return model


def test_members_of_a_mapped_task_are_counted_as_they_are_heard_of() -> None:
    model = counting(10)
    score = model.nodes["score"]
    assert counts(score) == "3/10, 1 failed"
    assert (score.active, model.total, model.count("succeeded"), model.count("failed")) == (1, 12, 3, 1)
    assert [node.id for node in model.outermost] == ["items", "score", "last"]
    assert [node.id for node in model.failures] == ["score[1]"]


def test_what_is_left_follows_from_the_rate_of_the_members() -> None:
    model = counting(10)
    score = model.nodes["score"]
    assert score.rate(NOW + 3) == 1.0
    assert score.left(NOW + 3) == 7.0
    assert score.left(NOW + 5) == 14.0  # nothing ended for two seconds more
    assert model.left(NOW + 3) is None  # nobody knows how long 'last' takes
    model.earlier = {"items": 1.0, "score": 99.0, "last": 4.0}
    assert model.left(NOW + 3) == 11.0
    feed(model, "run_cancelled", at=4)
    assert model.left(NOW + 4) is None


def test_before_a_first_member_ended_an_earlier_run_says_what_is_left() -> None:
    with workflow("diamond") as wf:
        start, left, right, end = (Task(name) for name in ("start", "left", "right", "end"))
        start >> left >> end
        start >> right >> end
    model = ProgressModel(wf.plan(), earlier={"start": 1.0, "left": 2.0, "right": 5.0, "end": 3.0})
    feed(model, "run_submitted")
    assert model.left(NOW) == 1 + 5 + 3
    feed(model, "node_started", "start")
    assert model.left(NOW + 0.4) == pytest.approx(0.6 + 5 + 3)
    feed(model, "node_succeeded", "start", at=1, duration=1.0)
    feed(model, "node_started", "left", at=1)
    feed(model, "node_started", "right", at=1)
    assert model.left(NOW + 2) == pytest.approx(4 + 3)
    assert model.left(NOW + 60) == pytest.approx(3)  # it takes longer than before; nobody knows how much


def real_run() -> tuple[ProgressModel, list[EventRecord]]:
    """Two tasks, each of which adds others, one of them in a group; really run here."""

    @task(inject_context=True)
    def grows(context: Any) -> int:
        context.next_task(ParallelGroup([Task("one"), Task("two")], name="pair"))
        return 1

    with workflow("grows") as wf:
        grows >> Task("after")
    records: list[EventRecord] = []
    run = LocalRun(wf, observer=records.append)
    model = ProgressModel(wf.plan(), plan_for=lambda graph: run.graphs.plan_for(run.run, graph))
    run.execute(timeout=30)
    return model, records


def test_added_tasks_stand_below_who_added_them() -> None:
    model, records = real_run()
    seen: list[list[str]] = []
    for record in records:
        model.feed(record)
        seen.append([node.label or node.id for node in model.outermost])
    assert seen[0] == ["grows", "after"]
    assert seen[-1] == ["grows", "+ added by grows", "after"]
    assert counts(model.nodes["pair"]) == "2/2"
    assert (model.count("succeeded"), model.total) == (4, 4)
    assert [node.state for node in model.outermost] == ["succeeded"] * 3


def test_without_their_plan_added_tasks_change_nothing() -> None:
    model, records = real_run()
    model.plan_for = lambda graph: None
    for record in records:
        model.feed(record)
    assert [node.id for node in model.outermost] == ["grows", "after"]
    assert model.count("succeeded") == 2


def test_a_log_tells_of_members_and_of_added_tasks() -> None:
    lines: list[str] = []
    model = ProgressModel(mapped().plan())
    log = LogLines(model, "mapped", lines.append)
    told: list[EventRecord] = [
        {"event": "group_opened", "node": "score", "at": NOW},
        {"event": "map_expanded", "node": "score", "at": NOW, "count": 3},
    ]
    for record in told:
        log(record, model.feed(record))
    assert [line.partition(" s  ")[2] for line in lines] == ["score: counts its items", "score: 3 members"]
    model, records = real_run()
    lines.clear()
    log = LogLines(model, "grows", lines.append)
    for record in records:
        log(record, model.feed(record))
    assert any(line.endswith("+ added by grows: 1 member started") for line in lines)


def drawn(model: ProgressModel, monkeypatch: pytest.MonkeyPatch, height: int = 24, at: float = 0.0) -> list[str]:
    """The screen's lines, 80 columns wide, ``at`` seconds after the first event."""
    console = Console(width=80, height=height, force_terminal=True, color_system=None, highlight=False)
    monkeypatch.setattr("graflow_celery.terminal.screen.stdout", lambda: console)
    monkeypatch.setattr("time.time", lambda: NOW + at)
    with console.capture() as captured:
        console.print(Screen(model, "mapped  run 1")._draw())
    return [re.sub(r"[⠀-⣿]", "*", line).rstrip() for line in captured.get().splitlines()]


def test_a_screen_shows_counts_rate_the_longest_and_the_last_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = drawn(counting(700), monkeypatch, at=4)
    assert max(len(line) for line in lines) <= 80
    assert lines[1].split()[:2] == ["✓", "items"]
    assert "3/700, 1 failed, 17:25 left, 0.7/s, 1 running" in lines[2]  # 697 members, 2 in 3 seconds
    assert lines[3].split() == ["*", "score[3]", "1.0", "s", "on", "w1"]
    assert lines[-1] == "  ✗ score[1]: ValueError: x"


def test_the_first_line_says_what_is_left_of_the_run_once_an_earlier_one_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    model = counting(10)
    assert drawn(model, monkeypatch, at=3)[0].split() == ["mapped", "run", "1", "3.0", "s"]
    model.earlier = {"last": 4.0}
    assert drawn(model, monkeypatch, at=3)[0].endswith("3.0 s, about 11.0 s left")


def test_a_small_group_tells_of_each_member_and_a_low_screen_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with workflow("small") as wf:
        ParallelGroup([ParallelGroup([Task("x"), Task("y")], name="inner"), Task("z")], name="outer") >> Task("end")
    model = ProgressModel(wf.plan())
    feed(model, "group_opened", "outer", count=2)
    rows = tree(model, model.outermost, 20, NOW)
    assert [(row.node.id, row.depth) for row in rows] == [
        *(("outer", 0), ("inner", 1), ("x", 2), ("y", 2), ("z", 1)),
        ("end", 0),
    ]
    assert tree(model, model.outermost, 2, NOW) == [Row(model.nodes["outer"]), Row(model.nodes["end"])]
    assert len(drawn(model, monkeypatch, height=7)) <= 7


def test_a_summary_names_path_and_waiting() -> None:
    model = counting(4)
    feed(model, "node_succeeded", "score[3]", at=5, duration=2.0)
    feed(model, "group_succeeded", "score", at=6)
    feed(model, "node_queued", "last", at=6)
    feed(model, "node_started", "last", at=8, attempt=1)
    feed(model, "node_succeeded", "last", at=9, attempt=1, duration=1.0)
    feed(model, "run_succeeded", at=9)
    told = dict(facts(model))
    assert told["tasks"] == "6 run, 1 failed"
    assert told["path"].endswith("score[3] 2.0 s > last 1.0 s")
    assert told["waiting"] == "5.0 s for workers, 1.0 s at barriers, of 9.0 s"
    said = as_json(model)
    assert said["critical_path"][-1] == {"node": "last", "attempt": 1, "waited": 2.0, "worked": 1.0}
    assert said["time"]["barriers"] == 1.0
    assert path(model.timing) == told["path"]
    assert waiting(model.timing) == told["waiting"]


def test_a_long_path_is_folded_to_its_longest_tasks() -> None:
    with workflow("long") as wf:
        first = Task("t0")
        for index in range(1, 10):
            first = first >> Task(f"t{index}")  # type: ignore[assignment]
    model = ProgressModel(wf.plan())
    feed(model, "run_submitted")
    at = 0.0
    for index in range(10):
        feed(model, "node_queued", f"t{index}", at=at)
        feed(model, "node_started", f"t{index}", at=at, attempt=1)
        at += 1 if index == 4 else index / 10
        feed(model, "node_succeeded", f"t{index}", at=at, attempt=1)
    told = path(model.timing)
    assert told.endswith(", and 4 shorter tasks")
    assert [part.split()[0] for part in told.split(" > ")] == ["t4", "t5", "t6", "t7", "t8", "t9"]


@pytest.mark.parametrize(("per_second", "text"), [(51.4, "51/s"), (7.53, "7.5/s"), (0.2, "12.0/min")])
def test_rates(per_second: float, text: str) -> None:
    assert rate(per_second) == text


def plan_of(members: int) -> Plan:
    with workflow("large") as wf:
        ParallelGroup([Task(f"m{index}") for index in range(members)], name="g") >> Task("last")
    return wf.plan()


def cost(members: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds that an event of one of so many members costs, and a share of a redrawing after each hundred."""
    model = ProgressModel(plan_of(members))
    screen = Screen(model, "large")
    console = Console(width=80, height=24, force_terminal=True)
    monkeypatch.setattr("graflow_celery.terminal.screen.stdout", lambda: console)
    feed(model, "group_opened", "g", count=members)
    began = time.perf_counter()
    for index in range(members):
        screen.feed({"event": "node_started", "node": f"m{index}", "attempt": 1, "worker": "w", "at": NOW})
        screen.feed({"event": "node_succeeded", "node": f"m{index}", "attempt": 1, "duration": 0.1, "at": NOW})
        if index % 100 == 0:
            screen._draw()
    return (time.perf_counter() - began) / members


def test_an_event_costs_the_same_however_large_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    cost(100, monkeypatch)  # warms up
    few, many = (min(cost(members, monkeypatch) for _ in range(2)) for members in (1_000, 10_000))
    assert many < 4 * few, f"{many * 1e6:.0f} us of 10,000 members, {few * 1e6:.0f} us of 1,000"
    assert many < 0.002
