"""The critical path and the time lost to waiting: events in, figures out."""

from __future__ import annotations

from typing import Any

import pytest

from graflow_celery.core.expr import ParallelGroup
from graflow_celery.core.plan import Plan
from graflow_celery.core.task import Task, task
from graflow_celery.engine.timing import Timing, timing
from graflow_celery.local import LocalRun
from graflow_celery.ports import EventRecord
from graflow_celery.workflows import workflow


def told(plan: Plan, *lines: tuple[Any, ...]) -> Timing:
    """Each line: seconds since the submission, event, and if there is one node, attempt and further fields."""
    records: list[EventRecord] = []
    for at, event, *rest in lines:
        record: dict[str, Any] = {"event": event, "at": 1000.0 + at}
        if rest:
            record |= {"node": rest[0], "attempt": rest[1] if len(rest) > 1 else 1}
        records.append(record | (rest[2] if len(rest) > 2 else {}))
    found = timing(records, plan.nodes)
    parts = found.worked + found.repeated + found.queued + found.barriers + found.other
    assert parts == pytest.approx(found.seconds), "the parts are not the whole"
    return found


def names(found: Timing) -> list[str]:
    return [step.node for step in found.path]


def chain_of(*ids: str) -> Plan:
    with workflow("chain") as wf:
        last = Task(ids[0])
        for name in ids[1:]:
            last = last >> Task(name)  # type: ignore[assignment]
    return wf.plan()


def group_of(*members: str) -> Plan:
    with workflow("group") as wf:
        Task("first") >> ParallelGroup([Task(name) for name in members], name="g") >> Task("last")
    return wf.plan()


def test_a_chain_is_its_own_critical_path() -> None:
    found = told(
        chain_of("a", "b"),
        (0, "run_submitted"),
        (0, "node_queued", "a"),
        (1, "run_started"),
        (1, "node_started", "a"),
        (5, "node_succeeded", "a"),
        (5, "node_queued", "b"),
        (7, "node_started", "b"),
        (8, "node_succeeded", "b"),
        (8, "run_succeeded"),
    )
    assert [(step.node, step.waited, step.worked) for step in found.path] == [("a", 1, 4), ("b", 2, 1)]
    assert (found.seconds, found.worked, found.queued, found.barriers, found.other) == (8, 5, 3, 0, 0)
    assert found.queued_in_all == 3


def test_through_a_group_it_leads_over_the_member_that_ended_last() -> None:
    found = told(
        group_of("m0", "m1", "m2"),
        (0, "run_submitted"),
        (0, "node_queued", "first"),
        (0, "node_started", "first"),
        (1, "node_succeeded", "first"),
        (1, "group_opened", "g", 0, {"count": 3}),
        (2, "node_started", "m0"),
        (2, "node_started", "m1"),
        (3, "node_succeeded", "m0"),
        (4, "node_started", "m2"),
        (9, "node_succeeded", "m1"),
        (6, "node_succeeded", "m2"),
        (10, "group_succeeded", "g", 0),
        (10, "node_queued", "last"),
        (10.5, "node_started", "last"),
        (12, "node_succeeded", "last"),
        (12, "run_succeeded"),
    )
    # Streams are in the order of commits: the last one to be told of ended last.
    assert names(found) == ["first", "m2", "g", "last"]
    found = told(
        group_of("m0", "m1"),
        (0, "run_submitted"),
        (0, "node_queued", "first"),
        (0, "node_started", "first"),
        (1, "node_succeeded", "first"),
        (1, "group_opened", "g", 0, {"count": 2}),
        (2, "node_started", "m0"),
        (2, "node_started", "m1"),
        (3, "node_succeeded", "m0"),
        (9, "node_succeeded", "m1"),
        (10, "group_succeeded", "g", 0),
        (10, "node_queued", "last"),
        (10.5, "node_started", "last"),
        (12, "node_succeeded", "last"),
        (12, "run_succeeded"),
    )
    assert names(found) == ["first", "m1", "g", "last"]
    assert (found.worked, found.queued, found.barriers) == (1 + 7 + 1.5, 1 + 0.5, 1)
    assert found.queued_in_all == 1 + 1 + 0.5
    assert found.idle_in_all == 7 + 1  # m0 waited from 3 to 10, m1 from 9


def test_members_of_a_mapped_task_wait_from_when_its_items_were_counted() -> None:
    with workflow("mapped") as wf:
        Task("items") >> _one.map(name="score") >> Task("last")
    found = told(
        wf.plan(),
        (0, "run_submitted"),
        (0, "node_queued", "items"),
        (0, "node_started", "items"),
        (1, "node_succeeded", "items"),
        (1, "group_opened", "score", 0),
        (2, "map_expanded", "score", 0, {"count": 2}),
        (2.5, "node_started", "score[0]"),
        (3, "node_started", "score[1]"),
        (4, "node_succeeded", "score[0]"),
        (5, "node_succeeded", "score[1]"),
        (5, "group_succeeded", "score", 0),
        (5, "node_queued", "last"),
        (5, "node_started", "last"),
        (6, "node_succeeded", "last"),
        (6, "run_succeeded"),
    )
    assert names(found) == ["items", "score[1]", "score", "last"]
    assert (found.queued, found.other) == (1, 1)


@task
def _one(item: int) -> int:
    return item


def test_attempts_that_had_to_be_repeated_and_waits_before_a_retry_are_told_apart() -> None:
    found = told(
        chain_of("a", "b"),
        (0, "run_submitted"),
        (0, "node_queued", "a"),
        (0, "node_started", "a"),
        (2, "node_retried", "a"),
        (2, "node_queued", "a", 2, {"delay": 3.0}),
        (6, "node_started", "a", 2),
        (10, "node_lost", "a", 2),
        (10, "node_queued", "a", 3),
        (11, "node_started", "a", 3),
        (12, "node_succeeded", "a", 3),
        (12, "node_queued", "b"),
        (12, "node_started", "b"),
        (13, "node_succeeded", "b"),
        (13, "run_succeeded"),
    )
    assert [(step.node, step.attempt) for step in found.path] == [("a", 1), ("a", 2), ("a", 3), ("b", 1)]
    assert (found.worked, found.repeated, found.queued, found.other) == (2, 6, 2, 3)


def test_a_person_who_is_asked_is_no_queue() -> None:
    found = told(
        chain_of("a", "b"),
        (0, "run_submitted"),
        (0, "node_queued", "a"),
        (0, "node_started", "a"),
        (1, "feedback_requested", "a"),
        (101, "feedback_answered", "a", 2),
        (101, "node_queued", "a", 3),
        (102, "node_started", "a", 3),
        (103, "node_succeeded", "a", 3),
        (103, "run_succeeded"),
    )
    assert (found.worked, found.queued, found.other) == (2, 1, 100)


def test_a_join_follows_the_predecessor_that_came_last() -> None:
    with workflow("diamond") as wf:
        start, left, right, end = (Task(name) for name in ("start", "left", "right", "end"))
        start >> left >> end
        start >> right >> end
    found = told(
        wf.plan(),
        (0, "run_submitted"),
        (0, "node_queued", "start"),
        (0, "node_started", "start"),
        (1, "node_succeeded", "start"),
        (1, "node_queued", "left"),
        (1, "node_queued", "right"),
        (1, "node_started", "left"),
        (1, "node_started", "right"),
        (4, "node_succeeded", "right"),
        (6, "node_succeeded", "left"),
        (6, "node_queued", "end"),
        (6, "node_started", "end"),
        (7, "node_succeeded", "end"),
        (7, "run_succeeded"),
    )
    assert names(found) == ["start", "left", "end"]


def test_it_begins_anew_with_a_retry_of_the_run() -> None:
    found = told(
        chain_of("a", "b"),
        (0, "run_submitted"),
        (0, "node_queued", "a"),
        (0, "node_started", "a"),
        (1, "node_failed", "a"),
        (1, "run_failed"),
        (500, "run_retried"),
        (500, "node_queued", "a", 2),
        (501, "node_started", "a", 2),
        (503, "node_succeeded", "a", 2),
        (503, "run_succeeded"),
    )
    assert (found.seconds, found.queued, found.worked) == (3, 1, 2)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4])
def test_of_a_run_that_goes_on_it_is_what_there_is_so_far(count: int) -> None:
    lines = [(0, "run_submitted"), (0, "node_queued", "a"), (1, "node_started", "a"), (3, "node_succeeded", "a")]
    found = told(chain_of("a", "b"), *lines[:count])
    assert found.seconds == (lines[count - 1][0] if count else 0)


def test_a_real_run_with_groups_loops_and_added_tasks_adds_up() -> None:
    @task(inject_context=True)
    def adds(context: Any) -> int:
        context.next_task(extra)
        return 1

    @task
    def extra() -> int:
        return 2

    @task(inject_context=True, max_cycles=3)
    def loops(context: Any) -> int:
        if context.cycle_count < 2:
            context.next_iteration()
        return 3

    with workflow("real") as wf:
        inner = ParallelGroup([Task("x"), Task("y")], name="inner")
        adds >> ParallelGroup([inner, Task("z")], name="outer") >> loops
    records: list[EventRecord] = []
    LocalRun(wf, observer=records.append).execute(timeout=30)
    found = timing(records, wf.plan().nodes)
    assert {"adds", "outer", "loops"} <= set(names(found))
    assert "extra" in [name.partition("@")[0] for name in names(found)]
    parts = found.worked + found.repeated + found.queued + found.barriers + found.other
    assert parts == pytest.approx(found.seconds, abs=0.001)
    ends = [float(record["at"]) for record in records]
    assert found.seconds == pytest.approx(ends[-1] - ends[0])
