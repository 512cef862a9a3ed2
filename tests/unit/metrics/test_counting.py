"""What events add to the counts. Every stream is counted whole, and cut in two at every place: that changes nothing."""

from __future__ import annotations

from collections import Counter

import pytest

from graflow_celery.metrics.catalogue import OTHER
from graflow_celery.metrics.counting import Field, Labels, Progress, RunCount

GROUP = {"m0": ("g", True), "m1": ("g", True)}


def around(key: str, graph: str) -> tuple[str, bool] | None:
    """As a plan says it: that of the workflow, or of what was added."""
    added = {"b@x7.0": ("a>1f@x7", True), "inner@x7.0": ("a>1f@x7", True), "c@x7.0.0": ("inner@x7.0", True)}
    return GROUP.get(key) if not graph else added.get(key) if graph == "hash" else None


def entry(at: int, event: str, node: str = "", **fields: str | int) -> tuple[str, dict[str, str]]:
    return f"{at}-0", {"event": event, "node": node, **{name: str(value) for name, value in fields.items()}}


def ran(at: int, event: str, node: str, ms: int, attempt: int = 1) -> tuple[str, dict[str, str]]:
    return entry(at, event, node, attempt=attempt, worker="w", duration=ms)


PIPELINE = [
    entry(1000, "run_started"),
    entry(1000, "node_queued", "a", attempt=1),
    entry(1300, "node_started", "a", attempt=1),
    ran(1400, "node_retried", "a", 100),
    entry(1400, "node_queued", "a", attempt=2),
    entry(9000, "node_started", "a", attempt=2),
    ran(9050, "node_succeeded", "a", 50, 2),
    entry(9050, "group_opened", "g", attempt=0),
    entry(9150, "node_started", "m0", attempt=1),
    entry(9250, "node_started", "m1", attempt=1),
    ran(9450, "node_succeeded", "m0", 300),
    entry(9500, "node_lost", "m1", attempt=1, worker="w", duration=0),
    entry(9500, "node_queued", "m1", attempt=2),
    entry(9700, "node_started", "m1", attempt=2),
    entry(9800, "node_failed", "m1", attempt=2, worker="w", duration=0),
    entry(10450, "group_failed", "g", attempt=0),
    entry(10450, "run_failed"),
]


def counted(
    entries: list[tuple[str, dict[str, str]]], cut: int | None = None, lost: frozenset[str] = frozenset()
) -> Counter[Field]:
    counts, progress, labels = Counter[Field](), Progress(), Labels((), 10)
    for part in (entries[:cut], entries[cut:] if cut is not None else []):
        count = RunCount("etl", progress, around, labels, counts, lost)
        for name, event in part:
            count.feed(name, event)
        progress = Progress(*progress.to_json())
    return counts


def test_a_run_is_counted() -> None:
    counts = counted(PIPELINE, lost=frozenset({"m1"}))
    wanted: dict[Field, int] = {
        ("graflow_runs_started_total", "etl"): 1,
        ("graflow_runs_total", "etl", "failed"): 1,
        ("graflow_nodes_total", "etl", "a", "succeeded"): 1,
        ("graflow_nodes_total", "etl", "m0", "succeeded"): 1,
        ("graflow_nodes_total", "etl", "m1", "failed"): 1,
        ("graflow_retries_total", "etl", "a"): 1,
        ("graflow_attempts_lost_total", "etl", "m1"): 2,
        ("graflow_attempts_replaced_total", "etl", "m1"): 1,
        ("graflow_nodes_poisoned_total", "etl", "m1"): 1,
        ("graflow_node_duration_seconds", "etl", "a", "0.1"): 1,
        ("graflow_node_duration_seconds", "etl", "a", "0.05"): 1,
        ("graflow_node_duration_seconds", "etl", "a", "ms"): 150,
        ("graflow_node_duration_seconds", "etl", "m0", "0.5"): 1,
        ("graflow_node_duration_seconds", "etl", "m0", "ms"): 300,
        # 300 ms of 'a', 100 of 'm0' and 200 of 'm1'; not what passed before second attempts
        ("graflow_queue_wait_seconds", "etl", "0.1"): 1,
        ("graflow_queue_wait_seconds", "etl", "0.5"): 2,
        ("graflow_queue_wait_seconds", "etl", "ms"): 600,
        ("graflow_barrier_wait_seconds", "etl", "g", "1"): 2,
        ("graflow_barrier_wait_seconds", "etl", "g", "ms"): 1000 + 650,
    }
    assert dict(counts) == wanted


@pytest.mark.parametrize("cut", range(len(PIPELINE)))
def test_it_does_not_matter_in_which_portions_it_is_counted(cut: int) -> None:
    assert counted(PIPELINE, cut) == counted(PIPELINE)


def test_a_failure_that_is_no_loss_poisons_nothing() -> None:
    assert not [name for name, *_ in counted(PIPELINE) if "poisoned" in name]


def test_members_of_a_mapped_task_and_passes_of_a_loop_are_one_node() -> None:
    entries = [ran(1, "node_succeeded", node, 1) for node in ("score[0]", "score[17]", "score@1~4", "score[3]@1~4.0")]
    assert counted(entries)["graflow_nodes_total", "etl", "score", "succeeded"] == 4


def test_labels_are_bounded_and_those_that_are_known_stay() -> None:
    labels = Labels([("graflow_retries_total", "etl", "a"), ("graflow_runs_started_total", "etl")], 2)
    assert labels.pair("etl", "b") == ("etl", "b")
    assert labels.pair("etl", "c") == (OTHER, OTHER)
    assert labels.pair("etl", "a") == ("etl", "a")
    assert [labels.workflow(name) for name in ("x", "y", "etl")] == ["x", OTHER, "etl"]


ADDED = [
    entry(1000, "run_started"),
    entry(1000, "group_opened", "a>1f@x7", attempt=0, graph="hash"),
    entry(1000, "group_opened", "inner@x7.0", attempt=0, graph="hash"),
    entry(1100, "node_started", "b@x7.0", attempt=1),
    ran(1200, "node_succeeded", "b@x7.0", 100),
    ran(1400, "node_succeeded", "c@x7.0.0", 100),
    entry(1900, "group_succeeded", "inner@x7.0", attempt=0),
    entry(2400, "group_succeeded", "a>1f@x7", attempt=0),
]


@pytest.mark.parametrize("cut", [None, *range(len(ADDED))])
def test_the_barriers_of_added_tasks_are_waited_at_too(cut: int | None) -> None:
    counts = counted(ADDED, cut)
    waits = {field[2:]: count for field, count in counts.items() if field[0] == "graflow_barrier_wait_seconds"}
    assert waits == {("inner", "0.5"): 1, ("inner", "ms"): 500, ("a>", "0.5"): 1, ("a>", "5"): 1, ("a>", "ms"): 1700}
    assert counts["graflow_queue_wait_seconds", "etl", "ms"] == 100


def test_what_members_of_a_mapped_task_add_has_its_name() -> None:
    labels = Labels((), 10)
    count = RunCount("etl", Progress(), around, labels, Counter[Field](), frozenset())
    assert count._pair("score[3]>1f00@x7") == ("etl", "score>")
    assert count._pair("by>hand") == ("etl", "by>hand")
