"""What is told of a run when it has ended, from its events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graflow_celery import task, workflow
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import NodeState
from graflow_celery.ports import NodeReport, RunRef
from graflow_celery.tracing.identity import span_id_of, trace_id_of, traceparent_of
from graflow_celery.tracing.story import Part, Records, story

RUN = RunRef("run", "graph")


def plan() -> Plan:
    @task
    def a() -> None: ...

    @task
    def b() -> None: ...

    @task
    def c() -> None: ...

    with workflow("w") as wf:
        _ = a >> (b | c).set_group_name("g")
    return wf.plan()


def told(*events: tuple[Any, ...], run: RunRef = RUN, records: Records | None = None) -> Sequence[Part]:
    """Each event as (name, node, attempt, more...), one a second."""
    events_: list[dict[str, Any]] = []
    for at, (name, *fields) in enumerate(events):
        record: dict[str, Any] = {"event": name, "at": float(at)}
        record |= dict(zip(("node", "attempt"), fields, strict=False))
        if len(fields) > 2:
            record |= fields[2]
        events_.append(record)
    return story(run, "w", lambda _: plan(), events_, None if records is None else lambda: records)


def short(parts: Sequence[Part]) -> list[tuple[str, str, int, str, float, float]]:
    return [(part.kind, part.key, part.attempt, part.status, part.start, part.end) for part in parts]


def test_an_attempt_was_told_by_its_process_and_its_node_is_told_at_the_end() -> None:
    parts = told(("run_submitted",), ("node_started", "a", 1), ("node_succeeded", "a", 1), ("run_succeeded",))
    assert short(parts) == [("node", "a", 0, "succeeded", 1, 2), ("run", "w", 0, "succeeded", 0, 3)]


def test_a_node_with_several_attempts_reaches_over_all_of_them() -> None:
    parts = told(
        ("run_submitted",),
        ("node_started", "a", 1),
        ("node_retried", "a", 1),
        ("node_started", "a", 2),
        ("node_failed", "a", 2, {"reason": "ValueError: x"}),
        ("run_failed",),
    )
    assert short(parts) == [("node", "a", 0, "failed", 1, 4), ("run", "w", 0, "failed", 0, 5)]
    assert parts[0].reason == "ValueError: x"


def test_an_attempt_that_others_report_is_told_with_what_they_say() -> None:
    lost = {"reason": "worker w1 died"}
    parts = told(
        ("run_submitted",),
        ("node_started", "a", 1, {"worker": "w1"}),
        ("node_lost", "a", 1, lost),
        ("node_started", "a", 2),
        ("node_failed", "a", 2, {"reason": "it ran past its time_limit", "reported": "1"}),
        ("run_failed",),
    )
    assert short(parts) == [
        ("attempt", "a", 1, "lost", 1, 2),
        ("attempt", "a", 2, "failed", 3, 4),
        ("node", "a", 0, "failed", 1, 4),
        ("run", "w", 0, "failed", 0, 5),
    ]
    first, second, node, whole = parts
    assert (first.worker, first.reason, first.follows) == ("w1", "worker w1 died", None)
    assert second.follows == first.span_id
    assert first.parent == second.parent == node.span_id
    assert node.parent == whole.span_id


def test_a_group_is_around_its_members() -> None:
    parts = told(
        ("run_submitted",),
        ("group_opened", "g"),
        ("node_started", "b", 1),
        ("node_iterated", "b", 1),
        ("node_started", "b", 2),
        ("node_succeeded", "b", 2),
        ("group_succeeded", "g"),
        ("run_succeeded",),
    )
    assert short(parts) == [
        ("node", "b", 0, "succeeded", 2, 5),
        ("group", "g", 0, "succeeded", 1, 6),
        ("run", "w", 0, "succeeded", 0, 7),
    ]
    node, group, whole = parts
    assert (node.parent, group.parent, whole.parent) == (group.span_id, whole.span_id, None)


def test_what_goes_on_when_the_run_ends_was_cut_off() -> None:
    parts = told(
        ("run_submitted",),
        ("group_opened", "g"),
        ("node_queued", "c", 1),
        ("node_started", "b", 1),
        ("run_cancelled", None, 0, {"reason": "enough"}),
    )
    assert short(parts) == [
        ("attempt", "b", 1, "cancelled", 3, 4),
        ("node", "b", 0, "cancelled", 3, 4),
        ("group", "g", 0, "cancelled", 1, 4),
        ("run", "w", 0, "cancelled", 0, 4),
    ]
    assert {part.reason for part in parts} == {"enough"}


def test_a_node_that_waited_is_told_though_it_had_one_attempt() -> None:
    parts = told(
        ("run_submitted",),
        ("node_started", "a", 1),
        ("node_waiting", "a", 1),
        ("node_succeeded", "a", 1),
        ("run_succeeded",),
    )
    assert short(parts)[0] == ("node", "a", 0, "succeeded", 1, 3)


def test_after_a_retry_what_came_before_is_not_told_again() -> None:
    again = RunRef("run", "graph~3")
    parts = told(
        ("run_submitted",),
        ("node_started", "a", 1),
        ("node_retried", "a", 1),
        ("node_started", "a", 2),
        ("node_failed", "a", 2),
        ("run_failed",),
        ("run_retried",),
        ("node_started", "a", 3),
        ("node_succeeded", "a", 3),
        ("run_succeeded",),
        run=again,
    )
    assert short(parts) == [("node", "a", 0, "succeeded", 7, 8), ("run", "w", 0, "succeeded", 6, 9)]
    assert parts[1].span_id != span_id_of(RUN, "run")


def report(state: str, attempt: int, started: float, duration: float = 0.0) -> NodeReport:
    return NodeReport(NodeState(state), attempt, "w1", started, duration, 0)


NODES = {
    "a": report("succeeded", 2, 1.0, 2.0),
    "g": report("running", 0, 3.0),
    "b": report("failed", 1, 4.0, 1.0),
    "c": report("running", 1, 4.0),
}
ALL = [
    ("node", "a", 0, "succeeded", 1, 3),
    ("node", "b", 0, "failed", 4, 5),
    ("attempt", "c", 1, "cancelled", 4, 7),
    ("node", "c", 0, "cancelled", 4, 7),
    ("group", "g", 0, "cancelled", 3, 7),
    ("run", "w", 0, "cancelled", 0.5, 7),
]


def test_without_events_the_records_tell_of_the_run() -> None:
    parts = told(records=Records(NODES, 0.5, 7.0, "cancelled", "enough"))
    assert short(parts) == ALL
    assert parts[-1].reason == "enough"


def test_what_was_trimmed_from_the_log_the_records_tell() -> None:
    """Of `a` the start is gone, of `b` everything, of `g` its opening."""
    parts = told(
        ("node_succeeded", "a", 2),
        ("node_started", "c", 1),
        ("run_cancelled",),
        records=Records({**NODES, "g": report("failed", 0, 3.0, 4.0)}, 0.5, 9.0, "cancelled"),
    )
    assert sorted(short(parts)) == sorted(
        [
            ("node", "a", 0, "succeeded", 1, 3),
            ("node", "b", 0, "failed", 4, 5),
            ("attempt", "c", 1, "cancelled", 1, 2),
            ("node", "c", 0, "cancelled", 1, 2),
            ("group", "g", 0, "failed", 3, 7),
            ("run", "w", 0, "cancelled", 0.5, 2),
        ]
    )


def test_the_records_are_not_asked_where_the_log_has_it_all() -> None:
    untouched = Records({"b": report("succeeded", 1, 0.0)}, 0.0, 0.0, "failed")
    parts = told(("run_submitted",), ("run_succeeded",), records=untouched)
    assert short(parts) == [("run", "w", 0, "succeeded", 0, 1)]


def test_of_a_retried_run_the_records_from_before_are_not_told_again() -> None:
    parts = told(run=RunRef("run", "graph~3"), records=Records({"a": report("succeeded", 2, 1.0)}, 0.0, 9.0, "failed"))
    assert [part.kind for part in parts] == ["run"]


def test_a_node_that_no_plan_has_belongs_to_the_run() -> None:
    parts = told(("run_submitted",), ("node_started", "gone", 1), ("run_cancelled",))
    assert [part.parent for part in parts] == [span_id_of(RUN, "node", "gone"), span_id_of(RUN, "run"), None]


def test_ids_follow_from_what_they_stand_for() -> None:
    assert trace_id_of("run") == trace_id_of("run") != trace_id_of("run2")
    assert len(trace_id_of("run")) == 32
    kinds = {span_id_of(RUN, "node", "a"), span_id_of(RUN, "group", "a"), span_id_of(RUN, "attempt", "a", 1)}
    assert len(kinds) == 3
    assert span_id_of(RunRef("run", "graph.signed"), "node", "a") == span_id_of(RUN, "node", "a")
    assert traceparent_of(RUN, "node", "a") == f"00-{trace_id_of('run')}-{span_id_of(RUN, 'node', 'a')}-01"


def test_members_of_a_mapped_task_have_its_name() -> None:
    assert Part(RUN, "w", "node", "score[17]").task == "score"
    assert Part(RUN, "w", "node", "clean@1~4").task == "clean"
