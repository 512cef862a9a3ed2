"""What a node's message came to, as Celery's events: what Flower shows."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from celery.events.state import State
from celery.utils.saferepr import saferepr

from graflow_celery.celery_backend.compiler import LONGEST_REPR, label, task_id, workflow_in
from graflow_celery.celery_backend.rows import (
    LONGEST_REPORT,
    MOST_TRACEBACKS,
    Report,
    Row,
    are_wanted,
    events_of,
    rows_in,
)
from graflow_celery.engine.terms import Entry
from graflow_celery.ports import RunRef

RUN = RunRef("0123456789abcdef", "00112233445566778899aabbccddeeff")
NASTY = 'it\'s \\ "so"\n\tand Größe 漢 <b>'


def through_celery(report: Report) -> list[Row] | None:
    """As Celery hands on what a task returned."""
    return rows_in(saferepr(report, LONGEST_REPORT))


def flowers(events: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """The tasks that Celery's own reader of events knows after some, by id."""
    state = State()
    for kind, fields in events:
        state.event({"type": kind, "hostname": "w@h", "timestamp": 9.0, "local_received": 9.0, "clock": 1, **fields})
    return dict(state.tasks)


def test_a_report_comes_through_whole_whatever_its_texts() -> None:
    many = [
        Entry(NASTY, 3, "failed", NASTY, 0.25, NASTY),
        *(Entry(f"m{i}", 1, "succeeded", "", 0.5) for i in range(2000)),
    ]
    rows = through_celery(Report(many))
    assert rows == [
        Row(each.node, each.attempt, each.state, each.reason, each.seconds, each.traceback) for each in many
    ]


def test_what_is_no_report_is_taken_for_none() -> None:
    for text in (None, "None", "[1, 2]", "[...", '["a"]', "[[1,2,3,4,5,6,7]]", 7):
        assert rows_in(text) is None, text


def test_a_report_holds_so_much_of_tracebacks_and_no_more() -> None:
    many = [Entry(f"m{i}", 1, "failed", "ValueError: no", 0.1, "x" * 4000) for i in range(1000)]
    told = through_celery(Report(many))
    assert told is not None
    assert sum(len(row.traceback) for row in told) == MOST_TRACEBACKS
    assert [row.reason for row in told] == ["ValueError: no"] * 1000


def test_one_attempt_is_told_by_the_event_of_its_message() -> None:
    own = task_id(RUN, "a", 1)
    for state, kind in {
        "succeeded": "task-succeeded",
        "waiting": "task-succeeded",
        "failed": "task-failed",
        "retried": "task-retried",
        "returned": "task-retried",
        "stale": "task-revoked",
    }.items():
        [(told, fields)] = events_of(own, RUN, "etl", [Row("a", 1, state, "E: x", 0.5, "trace")], 100.0)
        assert (told, fields["uuid"]) == (kind, own)
        assert fields.get("exception") == ("E: x" if state in ("failed", "retried", "returned") else None)
        assert "received" not in fields, "Celery said that itself"


def test_each_of_many_has_a_row_that_flower_can_show() -> None:
    rows = [Row("m0", 1, "succeeded", "", 1.0), Row("m1", 2, "failed", "E: x", 2.0, "trace"), Row("m2", 1, "returned")]
    tasks = flowers(list(events_of("the.message", RUN, "etl", rows, 100.0)))
    ok, bad, message = tasks[task_id(RUN, "m0", 1)], tasks[task_id(RUN, "m1", 2)], tasks["the.message"]
    assert len(tasks) == 3, "the third has not begun"
    assert (ok.state, ok.name, ok.args, ok.started, ok.runtime) == ("SUCCESS", "graflow.node", "etl m0 #1", 97.0, 1.0)
    assert (bad.state, bad.exception, bad.traceback, bad.args) == ("FAILURE", "E: x", "trace", "etl m1 #2")
    assert (bad.started, bad.received, bad.root_id) == (98.0, 98.0, RUN.id)
    assert (message.state, message.result) == ("SUCCESS", "1 succeeded, 1 failed, 1 returned")


def test_a_chain_in_one_message_has_its_first_node_for_the_message() -> None:
    rows = [Row("a", 1, "succeeded", "", 1.0), Row("b", 1, "failed", "E: x", 1.0)]
    events = list(events_of(task_id(RUN, "a", 1), RUN, "etl", rows, 100.0))
    assert [kind for kind, _ in events] == ["task-succeeded", "task-failed"]
    assert events[0][1]["uuid"] == task_id(RUN, "a", 1)
    assert events[1][1]["args"] == "etl b #1"


def test_a_message_of_which_nothing_was_let_run_is_revoked() -> None:
    assert [kind for kind, _ in events_of("the.message", RUN, "etl", [], 100.0)] == ["task-revoked"]


def test_nothing_is_told_where_a_worker_sends_events_of_workers_alone() -> None:
    app = Celery("events", broker="memory://", set_as_current=False)
    with app.connection_for_write() as connection:
        assert not are_wanted(None)
        assert not are_wanted(app.events.Dispatcher(connection, enabled=False))
        assert not are_wanted(app.events.Dispatcher(connection, groups=["worker"]))
        assert are_wanted(app.events.Dispatcher(connection))
        assert are_wanted(app.events.Dispatcher(connection, groups=["worker", "task"]))


@pytest.mark.parametrize("workflow", ["etl", "two words", "w" * 100])
@pytest.mark.parametrize("node", ["clean", "a #1 b", "n" * 100, "score[123456]", "n" * 90 + "[17]"])
def test_a_label_is_short_and_names_all_three(workflow: str, node: str) -> None:
    text = label(workflow, node, "#12")
    assert len(text) <= LONGEST_REPR
    assert text.endswith(f"{node[-4:]} #12")
    found = workflow_in(text, node, "#12")
    assert workflow.startswith(found.rstrip("…"))
    assert len(found) > 2
