"""A workflow means the same in threads and on Celery workers. Every test here runs on both."""

from __future__ import annotations

import pytest

from graflow_celery import (
    AtLeastNGroupPolicy,
    CriticalGroupPolicy,
    ParallelGroup,
    ParallelGroupError,
    TaskExecutionContext,
    chain,
    parallel,
    task,
    workflow,
)
from graflow_celery.errors import ParameterError, RunTimeoutError, UnknownNodeError
from tests.contract.conftest import Execute


@task
def number() -> int:
    return 5


@task
def double(number: int) -> int:
    return 2 * number


@task
def square(number: int) -> int:
    return number * number


@task
def total(double: int, square: int) -> int:
    return double + square


class Unlucky(Exception):
    """An exception of the user's, with a field of its own."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@task
def unlucky() -> None:
    raise Unlucky(13)


def test_a_sequence_passes_results_by_name(execute: Execute) -> None:
    with workflow("sequence") as wf:
        number >> double
    assert execute(wf) == 10


def test_a_join_gets_every_result_and_runs_once(execute: Execute) -> None:
    with workflow("diamond") as wf:

        @task(inject_context=True)
        def joined(context: TaskExecutionContext, double: int, square: int) -> list[int]:
            return [double, square, int(context.get_channel().atomic_add("joined"))]

        number >> double >> joined
        number >> square >> joined
    assert execute(wf) == [10, 25, 1]


def test_a_group_then_a_barrier(execute: Execute) -> None:
    with workflow("group") as wf:
        number >> (double | square) >> total
    assert execute(wf) == 35


def test_a_parameter_named_like_a_group_gets_its_results(execute: Execute) -> None:
    @task
    def gather(both: dict[str, int]) -> list[tuple[str, int]]:
        return sorted(both.items())

    with workflow("gather") as wf:
        chain(number, ParallelGroup([double, square], name="both"), gather)
    assert execute(wf) == [("double", 10), ("square", 25)]


def test_chains_and_groups_inside_of_a_group(execute: Execute) -> None:
    with workflow("nested") as wf:

        @task
        def again(double: int) -> int:
            return double + 1

        @task
        def gather(outer: dict[str, object]) -> dict[str, object]:
            return outer

        inner = parallel(square, number(task_id="other")).set_group_name("inner")
        number >> ParallelGroup([double >> again, inner], name="outer") >> gather
    assert execute(wf) == {"again": 11, "inner": {"square": 25, "other": 5}}


def test_a_workflow_may_be_a_group_alone(execute: Execute) -> None:
    with workflow("only a group") as wf:
        number | number(task_id="second")
    assert execute(wf) == {"number": 5, "second": 5}


def test_a_group_of_two_hundred(execute: Execute) -> None:
    @task
    def member(index: int) -> int:
        return index

    @task
    def add(members: dict[str, int]) -> int:
        return sum(members.values())

    with workflow("two hundred") as wf:
        ParallelGroup([member(task_id=f"m{index}", index=index) for index in range(200)], name="members") >> add
    assert execute(wf) == sum(range(200))


def test_bound_values_beat_results_and_channel_and_defaults_come_last(execute: Execute) -> None:
    @task
    def show(number: int, colour: str, size: str = "small", shape: str = "round") -> list[object]:
        return [number, colour, size, shape]

    with workflow("precedence") as wf:
        number >> show(task_id="shown", colour="red")
    assert execute(wf, initial_channel={"number": 1, "colour": "blue", "size": "big"}) == [5, "red", "big", "round"]


def test_a_parameter_without_a_value_is_an_error_that_names_it(execute: Execute) -> None:
    @task
    def needy(nothing_of_this_name: int) -> None: ...

    with workflow("needy") as wf:
        wf.add(needy)
    with pytest.raises(ParameterError, match="Task 'needy': no value for parameter 'nothing_of_this_name'"):
        execute(wf)


def test_the_original_exception_reaches_the_caller(execute: Execute) -> None:
    with workflow("unlucky") as wf:
        number >> unlucky >> double
    with pytest.raises(Unlucky) as caught:
        execute(wf)
    assert caught.value.code == 13


def test_a_groups_error_lists_every_failed_member(execute: Execute) -> None:
    with workflow("unlucky group") as wf:
        (number | unlucky | unlucky(task_id="unlucky too")).set_group_name("g") >> double
    with pytest.raises(ParallelGroupError) as caught:
        execute(wf)
    assert caught.value.group_id == "g"
    assert caught.value.failed_tasks == [("unlucky", "Unlucky: 13"), ("unlucky too", "Unlucky: 13")]
    assert caught.value.successful_tasks == ["number"]


def test_best_effort_goes_on_with_what_succeeded(execute: Execute) -> None:
    @task
    def gather(g: dict[str, int]) -> dict[str, int]:
        return g

    with workflow("best effort") as wf:
        (number | unlucky).set_group_name("g").with_execution(policy="best_effort") >> gather
    assert execute(wf) == {"number": 5}


@pytest.mark.parametrize(
    ("policy", "met"),
    [
        (AtLeastNGroupPolicy(1), True),
        (AtLeastNGroupPolicy(2), False),
        (CriticalGroupPolicy(("number",)), True),
        (CriticalGroupPolicy(("unlucky",)), False),
    ],
    ids=repr,
)
def test_policies_decide_at_the_barrier(execute: Execute, policy: AtLeastNGroupPolicy, met: bool) -> None:
    with workflow("policies") as wf:
        ParallelGroup([number, unlucky], name="g", policy=policy) >> double
    if met:
        assert execute(wf) == 10
    else:
        with pytest.raises(ParallelGroupError):
            execute(wf)


def test_what_follows_a_failure_in_a_members_chain_is_skipped(execute: Execute) -> None:
    @task
    def gather(g: dict[str, int]) -> dict[str, int]:
        return g

    with workflow("skipped") as wf:
        member = unlucky >> double >> square
        ParallelGroup([member, number], name="g", policy="best_effort") >> gather
    assert execute(wf) == {"number": 5}


def test_a_failed_attempt_is_followed_by_another_one(execute: Execute) -> None:
    @task(max_retries=3, inject_context=True)
    def third_time(context: TaskExecutionContext) -> list[int]:
        if context.retry_count < 2:
            raise ValueError("not yet")
        return [context.attempt, context.retry_count]

    with workflow("retries") as wf:
        (third_time | number).set_group_name("g")
    assert execute(wf) == {"third_time": [3, 2], "number": 5}


def test_attempts_run_out_and_the_last_error_is_raised(execute: Execute) -> None:
    @task(max_retries=1, inject_context=True)
    def never(context: TaskExecutionContext) -> None:
        raise ValueError(f"attempt {context.attempt}")

    with workflow("no luck") as wf:
        wf.add(never)
    with pytest.raises(ValueError, match="attempt 2"):
        execute(wf)


def test_five_members_add_a_hundred_times_each(execute: Execute) -> None:
    @task(inject_context=True)
    def add(context: TaskExecutionContext) -> None:
        for _ in range(100):
            context.get_channel().atomic_add("count")

    @task
    def read(count: int) -> int:
        return count

    with workflow("counting") as wf:
        ParallelGroup([add(task_id=f"add{index}") for index in range(5)], name="adders") >> read
    assert execute(wf) == 500


def test_megabytes_pass_from_node_to_node(execute: Execute) -> None:
    @task
    def large() -> bytes:
        return bytes(range(256)) * 16_384

    @task
    def measure(large: bytes) -> list[object]:
        return [len(large), large[:4] == bytes(range(4))]

    with workflow("large") as wf:
        large >> (measure | measure(task_id="again"))
    assert execute(wf) == {"measure": [4_194_304, True], "again": [4_194_304, True]}


def test_a_start_node_leaves_out_what_comes_before(execute: Execute) -> None:
    @task
    def first() -> int:
        raise AssertionError("not reached")

    with workflow("late start") as wf:
        first >> number >> double
    assert execute(wf, start_node="number") == 10


def test_an_unknown_start_node_is_refused_before_anything_runs(execute: Execute) -> None:
    with workflow("unknown start") as wf:
        number >> double
    with pytest.raises(UnknownNodeError, match="no node 'nowhere'"):
        execute(wf, start_node="nowhere")


def test_the_context_tells_results_afterwards(execute: Execute) -> None:
    with workflow("context") as wf:
        number >> double
    result, context = execute(wf, ret_context=True)
    assert result == 10
    assert context.get_result("number") == 5
    assert context.session_id


def test_a_timeout_ends_the_run(execute: Execute, tmp_path_factory: pytest.TempPathFactory) -> None:
    gate = tmp_path_factory.mktemp("gate") / "open"

    @task
    def waits(path: str) -> None:
        import pathlib
        import threading

        ticks = threading.Event()
        while not pathlib.Path(path).exists():
            ticks.wait(0.02)

    with workflow("slow") as wf:
        wf.add(waits(task_id="waiting", path=str(gate)))
    seen: list[str] = []

    def progress(record: object) -> None:
        event = record["event"]  # type: ignore[index]
        seen.append(event)
        if event == "run_cancelled":
            gate.touch()

    with pytest.raises(RunTimeoutError, match=r"did not end within 0\.5 s"):
        execute(wf, timeout=0.5, progress=progress, after=gate.touch)
    assert "node_started" in seen


def test_a_workflow_runs_again_and_its_events_come_in_order(execute: Execute) -> None:
    with workflow("twice") as wf:
        number >> double
    for _ in range(2):
        seen: list[str] = []
        assert execute(wf, progress=lambda record, seen=seen: seen.append(str(record["event"]))) == 10
        assert seen == [
            "run_submitted",
            "node_queued",
            "run_started",
            "node_started",
            "node_succeeded",
            "node_queued",
            "node_started",
            "node_succeeded",
            "run_succeeded",
        ]
