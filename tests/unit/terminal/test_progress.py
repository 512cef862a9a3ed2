"""ProgressModel: a run's events in, how far it is out."""

from __future__ import annotations

from typing import Any

import pytest

from graflow_celery.core.expr import ParallelGroup
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import RunStatus
from graflow_celery.core.task import Task, task
from graflow_celery.local import LocalRun
from graflow_celery.ports import EventRecord
from graflow_celery.terminal.live import LogLines
from graflow_celery.terminal.progress import ProgressModel, steps
from graflow_celery.terminal.screen import fold
from graflow_celery.terminal.wording import counts, duration, size
from graflow_celery.workflows import workflow


def plan_of(members: int = 3) -> Plan:
    """``first >> (m0 | m1 | ...) >> last``."""
    with workflow("census") as wf:
        Task("first") >> ParallelGroup([Task(f"m{index}") for index in range(members)], name="packages") >> Task("last")
    return wf.plan()


class Story:
    """Feeds events to a model, a second apart unless told otherwise."""

    def __init__(self, plan: Plan) -> None:
        self.model = ProgressModel(plan)
        self.now = 100.0

    def __call__(self, event: str, node: str = "", **fields: Any) -> None:
        record = {"event": event, "at": self.now, **({"node": node} if node else {}), **fields}
        self.model.feed(record)
        self.now += 1.0


def test_a_run_from_its_start_to_its_end() -> None:
    story = Story(plan_of())
    model = story.model
    assert [node.state for node in model.outermost] == ["waiting"] * 3

    story("run_submitted")
    story("node_queued", "first", attempt=1)
    assert model.nodes["first"].state == "queued"
    story("node_started", "first", attempt=1, worker="w1")
    assert (model.nodes["first"].state, model.nodes["first"].worker) == ("running", "w1")
    assert model.nodes["first"].seconds(now=104.5) == 2.5
    story("node_succeeded", "first", attempt=1, worker="w1", duration=0.75)
    assert model.nodes["first"].seconds(now=999) == 0.75

    story("group_opened", "packages", count=3)
    group = model.nodes["packages"]
    assert (group.state, group.members, group.done) == ("running", 3, 0)
    assert model.nodes["m2"].state == "queued"
    story("node_started", "m0", attempt=1, worker="w1")
    story("node_started", "m1", attempt=1, worker="w2")
    assert group.active == 2
    story("node_succeeded", "m0", attempt=1, worker="w1", duration=1.0)
    story("node_failed", "m1", attempt=1, worker="w2", duration=1.0, reason="ValueError: x")
    assert (group.active, group.succeeded, group.failed, group.done) == (0, 1, 1, 2)
    assert counts(group) == "2/3, 1 failed"
    story("node_succeeded", "m2", attempt=1, worker="w2", duration=3.0)
    story("group_succeeded", "packages")
    assert group.seconds(now=999) == 6.0

    story("node_queued", "last", attempt=1)
    story("node_started", "last", attempt=1, worker="w1")
    story("node_succeeded", "last", attempt=1, worker="w1", duration=0.1)
    story("run_succeeded", reason="")
    assert model.has_ended
    assert model.status is RunStatus.SUCCEEDED
    assert model.seconds(now=9999) == 14.0
    assert [node.id for node in model.slowest(2)] == ["m2", "m0"]
    assert [node.id for node in model.failures] == ["m1"]
    assert (model.count("succeeded"), model.count("failed"), model.count("waiting")) == (4, 1, 0)


def test_retries_and_losses_are_counted_and_the_node_waits_again() -> None:
    story = Story(plan_of())
    story("group_opened", "packages", count=3)
    story("node_started", "m0", attempt=1, worker="w1")
    story("node_retried", "m0", attempt=1, worker="w1", reason="OSError: disk")
    node, group = story.model.nodes["m0"], story.model.nodes["packages"]
    assert (node.state, node.reason, group.active, group.retried) == ("queued", "OSError: disk", 0, 1)
    story("node_started", "m0", attempt=2, worker="w2")
    story("node_lost", "m0", attempt=2, worker="w2", reason="its worker process died")
    assert (node.state, node.attempt, story.model.retries, group.active) == ("queued", 2, 2, 0)
    assert counts(group) == "0/3, 2 retries"


def test_a_failed_run_leaves_what_ran_unfinished() -> None:
    story = Story(plan_of())
    story("run_submitted")
    story("group_opened", "packages", count=3)
    story("node_started", "m0", attempt=1)
    story("run_cancelled", reason="enough")
    assert story.model.status is RunStatus.CANCELLED
    assert story.model.reason == "enough"
    assert story.model.state_of(story.model.nodes["m0"]) == "unfinished"
    assert story.model.state_of(story.model.nodes["packages"]) == "unfinished"
    assert story.model.state_of(story.model.nodes["last"]) == "waiting"


def test_the_reason_of_a_failed_step_is_told_without_its_name() -> None:
    story = Story(plan_of())
    story("node_failed", "first", attempt=1, reason="'first' failed: ValueError: x")
    assert story.model.nodes["first"].reason == "ValueError: x"


def test_missing_workers_are_told_until_something_happens() -> None:
    story = Story(plan_of())
    story("workers_missing", queues=["celery", "gpu"])
    assert list(story.model.missing_queues) == ["celery", "gpu"]
    story("node_started", "first", attempt=1)
    assert not story.model.missing_queues


def test_a_worker_with_other_code_changes_no_state() -> None:
    story = Story(plan_of())
    story("node_started", "first", attempt=1)
    story("code_differs", "first", worker="w1", reason="'m.f' has other code on w1")
    assert story.model.differing == "'m.f' has other code on w1"
    assert story.model.nodes["first"].state == "running"


@pytest.mark.parametrize(
    "record",
    [
        {"event": "something_new", "at": 1.0},
        {"event": "node_started", "node": "of another plan", "at": 1.0},
        {"event": "run_aborted", "reason": "x"},
        {"event": "node_praised", "node": "first"},
    ],
)
def test_an_event_that_it_does_not_know_changes_nothing(record: EventRecord) -> None:
    model, untouched = ProgressModel(plan_of()), ProgressModel(plan_of())
    model.feed(record)
    assert model == untouched


def test_members_that_are_chains_count_once_and_skipped_ones_are_not_reached() -> None:
    with workflow("chains") as wf:
        ParallelGroup([Task("a1") >> Task("a2"), Task("b1") >> Task("b2")], name="pairs") >> Task("end")
    story = Story(wf.plan())
    story("group_opened", "pairs", count=2)
    story("node_succeeded", "a1", attempt=1)
    assert story.model.nodes["pairs"].done == 0
    story("node_succeeded", "a2", attempt=1)
    story("node_failed", "b1", attempt=1, reason="x")
    story("node_skipped", "b2")
    assert counts(story.model.nodes["pairs"]) == "2/2, 1 not reached"


def test_groups_inside_groups_open_with_them_and_count_as_members() -> None:
    with workflow("nested") as wf:
        inner = ParallelGroup([Task("x"), Task("y")], name="inner")
        ParallelGroup([inner, Task("z")], name="outer") >> Task("end")
    story = Story(wf.plan())
    story("group_opened", "outer", count=3)
    nodes = story.model.nodes
    assert (nodes["inner"].state, nodes["x"].state) == ("running", "queued")
    story("node_started", "x", attempt=1)
    assert (nodes["inner"].active, nodes["outer"].active) == (1, 1)
    story("node_succeeded", "x", attempt=1)
    story("node_succeeded", "y", attempt=1)
    assert (nodes["inner"].done, nodes["outer"].done) == (2, 0)
    story("group_succeeded", "inner")
    assert counts(nodes["outer"]) == "1/2"
    assert [node.id for node in story.model.outermost] == ["outer", "end"]


def test_steps_stand_after_what_they_wait_for_whatever_order_the_plan_has() -> None:
    with workflow("diamond") as wf:
        start, right, left, end, a_tail = (Task(name) for name in ("start", "right", "left", "end", "a_tail"))
        start >> right >> end >> a_tail
        start >> left >> end
    plan = wf.plan()
    shuffled = Plan(plan.name, plan.start, dict(sorted(plan.nodes.items())))
    assert steps(shuffled) == ["start", "right", "left", "end", "a_tail"]


def test_what_a_local_run_tells_is_understood() -> None:
    @task
    def number(index: int) -> int:
        if index == 3:
            raise ValueError("three")
        return index

    with workflow("real") as wf:
        members = [number(task_id=f"n{index}", index=index) for index in range(10)]
        ParallelGroup(members, name="numbers", policy="best_effort") >> Task("end")
    model = ProgressModel(wf.plan())
    records: list[EventRecord] = []
    LocalRun(wf, observer=records.append).execute(timeout=30)
    for record in records:
        model.feed(record)
    assert model.status is RunStatus.SUCCEEDED
    assert counts(model.nodes["numbers"]) == "10/10, 1 failed"
    assert (model.count("succeeded"), model.count("failed")) == (10, 1)
    assert model.nodes["numbers"].active == 0


@pytest.mark.parametrize("members", [1, 2, 7, 20, 700, 5000])
def test_a_log_has_some_twenty_lines_for_a_group_however_large(members: int) -> None:
    story = Story(plan_of(members))
    lines: list[str] = []
    log = LogLines(story.model, "census", lines.append)

    def tell(event: str, node: str, **fields: Any) -> None:
        record = {"event": event, "node": node, "at": 1.0, **fields}
        log(record, story.model.feed(record))

    tell("group_opened", "packages", count=members)
    for index in range(members):
        tell("node_started", f"m{index}", attempt=1, worker="w")
        if index % 10 == 0:
            tell("node_failed", f"m{index}", attempt=1, worker="w", reason=f"ValueError: {index}\nmore")
        else:
            tell("node_succeeded", f"m{index}", attempt=1, worker="w", duration=0.1)
    tell("group_succeeded", "packages")
    assert 3 <= len(lines) <= 20
    assert lines[0].endswith("packages: 1 member started" if members == 1 else f"packages: {members:,} members started")
    assert lines[1].endswith("packages: m0 failed on w: ValueError: 0")
    assert f"packages: {members}/{members}, {(members + 9) // 10} failed, done in" in lines[-1]


def test_a_log_tells_the_steps() -> None:
    story = Story(plan_of())
    lines: list[str] = []
    log = LogLines(story.model, "census  run 1", lines.append)
    for record in (
        {"event": "run_submitted", "at": 50.0},
        {"event": "node_queued", "node": "first", "attempt": 1, "at": 50.0},
        {"event": "workers_missing", "queues": ["celery"], "at": 53.0},
        {"event": "node_started", "node": "first", "attempt": 1, "worker": "w1", "at": 55.0},
        {"event": "code_differs", "node": "first", "worker": "w1", "reason": "'m.f' has other code on w1", "at": 55.1},
        {"event": "code_differs", "node": "first", "worker": "w1", "reason": "'m.f' has other code on w1", "at": 55.2},
        {"event": "node_retried", "node": "first", "attempt": 1, "worker": "w1", "reason": "E: x", "at": 55.5},
        {"event": "node_failed", "node": "first", "attempt": 2, "worker": "w1", "reason": "E: y", "at": 56.0},
        {"event": "run_failed", "reason": "'first' failed: E: y", "at": 56.0},
    ):
        log(record, story.model.feed(record))
    assert lines == [
        "    0.0 s  census  run 1  5 tasks",
        "    3.0 s  waiting: no live worker consumes 'celery'. Start one: graflow-celery worker -Q celery",
        "    5.0 s  first started on w1",
        "    5.1 s  'm.f' has other code on w1",
        "    5.5 s  first is tried again: E: x",
        "    6.0 s  first failed on w1: E: y",
    ]


def test_a_log_tells_now_and_then_what_is_left_of_the_run() -> None:
    story = Story(plan_of(100))
    story.model.earlier = {"first": 5.0, "last": 30.0}
    lines: list[str] = []
    log = LogLines(story.model, "census", lines.append)

    def tell(event: str, at: float, node: str = "", **fields: Any) -> None:
        record = {"event": event, "node": node, "at": 50.0 + at, "attempt": 1, "worker": "w", **fields}
        log(record, story.model.feed(record))

    tell("run_submitted", 0.0)
    tell("node_started", 0.5, "first")
    tell("node_succeeded", 12.0, "first", duration=11.5)
    tell("group_opened", 12.0, "packages", count=100)
    for index in range(50):
        tell("node_succeeded", 13.0 + index, f"m{index}", duration=1.0)
    guesses = [line for line in lines if "of 102 tasks done" in line]
    assert [line[:9] for line in guesses] == [f"   {at}.0 s" for at in (22, 32, 42, 52, 62)]
    # 90 members at one a second, and the last task as long as the time before
    assert guesses[0].endswith(f"11 of 102 tasks done, about {duration(120.0)} left")
    ended = len(lines)
    tell("run_cancelled", 90.0)
    assert not [line for line in lines[ended:] if "left" in line]


def test_many_steps_are_folded_to_what_matters() -> None:
    with workflow("long") as wf:
        first = Task("t0")
        for index in range(1, 50):
            first = first >> Task(f"t{index}")  # type: ignore[assignment]
    story = Story(wf.plan())
    for index in range(20):
        story("node_succeeded", f"t{index}", attempt=1, duration=1.0)
    story("node_started", "t20", attempt=1)
    shown, rest = fold(list(story.model.outermost), 10)
    assert len(shown) == 10
    assert "t20" in [node.id for node in shown]
    assert rest == "and 40 nodes more: 20 done, 20 to come"
    assert fold(list(story.model.outermost), 50)[1] == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 ms"), (0.2104, "210 ms"), (0.9999, "1.0 s"), (12.44, "12.4 s"), (65, "1:05"), (7389, "2:03:09")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (4200, "4.2 KB"), (1_300_000, "1.3 MB")])
def test_sizes(count: int, text: str) -> None:
    assert size(count) == text


def test_a_node_that_asks_and_a_person_who_is_late() -> None:
    story = Story(plan_of())
    model = story.model
    lines: list[str] = []
    log = LogLines(model, "census", lines.append)
    story("run_submitted")
    story("node_started", "first", attempt=1)
    story("feedback_requested", "first", attempt=1, request="run-1")
    first = model.nodes["first"]
    assert (first.state, first.request, model.status) == ("asking", "run-1", RunStatus.RUNNING)
    log({"event": "feedback_requested", "at": 100.0, "node": "first"}, first)
    story("feedback_expired", "first", attempt=2, request="run-1")
    story("run_waiting", "first")
    assert (first.state, model.status, model.has_ended) == ("asking", RunStatus.WAITING, False)
    story("feedback_answered", "first", attempt=2, request="run-1")
    assert (first.state, first.request, model.status) == ("queued", "", RunStatus.RUNNING)
    story("node_started", "first", attempt=3)
    story("node_succeeded", "first", attempt=3, duration=0.5)
    assert first.state == "succeeded"
    assert [line.partition("s  ")[2] for line in lines] == ["first waits for a person: request run-1"]


def test_a_member_that_asks_is_not_active_and_the_run_waits_for_each_who_is_late() -> None:
    story = Story(plan_of())
    model = story.model
    story("run_submitted")
    story("group_opened", "packages")
    for member in ("m0", "m1"):
        story("node_started", member, attempt=1)
        story("feedback_requested", member, attempt=1, request=f"run-{member}")
        story("feedback_expired", member, attempt=2, request=f"run-{member}")
    assert model.nodes["packages"].active == 0
    statuses: list[RunStatus] = []
    for member in ("m0", "m1"):
        story("feedback_answered", member, attempt=2, request=f"run-{member}")
        statuses.append(model.status)
    assert statuses == [RunStatus.WAITING, RunStatus.RUNNING]
    story("run_cancelled", reason="enough")
    assert model.state_of(model.nodes["m0"]) == "unfinished"


def test_later_passes_of_a_loop_tell_of_the_same_nodes() -> None:
    story = Story(plan_of(members=1))
    model = story.model
    for key in ("first", "first@1~0"):
        story("node_started", key, attempt=1, worker="w1")
        story("node_succeeded", key, attempt=1, worker="w1", duration=1.0)
    for key, member in (("packages", "m0"), ("packages@1~0", "m0@1~0.0")):
        story("group_opened", key, count=1)
        story("node_succeeded", member, attempt=1, worker="w1", duration=1.0)
    assert (model.nodes["packages"].succeeded, model.nodes["packages"].done) == (1, 1)
    story("node_skipped", "first@2~0")
    assert model.nodes["first"].state == "succeeded"
    assert model.count("succeeded") == 2
