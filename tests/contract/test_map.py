"""Mapped tasks: a group whose size is known at run time only, the same in threads and on Celery workers."""

from __future__ import annotations

from typing import Any

import pytest

from graflow_celery import (
    AtLeastNGroupPolicy,
    ParallelGroup,
    ParallelGroupError,
    RetryPolicy,
    TaskExecutionContext,
    task,
    workflow,
)
from graflow_celery.errors import GraphCompilationError
from tests.contract.conftest import Execute


@task
def discover(size: int) -> list[int]:
    return list(range(size))


@task
def double(item: int) -> int:
    return 2 * item


@task
def rank(double: list[int]) -> list[int]:
    return double


@pytest.mark.parametrize("size", [0, 1, 7, 300])
def test_the_next_task_gets_the_results_in_the_order_of_the_items(execute: Execute, size: int) -> None:
    with workflow("map") as wf:
        discover >> double.map() >> rank
    assert execute(wf, initial_channel={"size": size}) == [2 * item for item in range(size)]


def test_a_map_alone_takes_a_channel_key_and_its_list_is_the_runs_result(execute: Execute) -> None:
    with workflow("alone") as wf:
        double.map(over="numbers", name="doubled")
    assert execute(wf, initial_channel={"numbers": [3, 1, 2]}) == [6, 2, 4]


def test_bound_values_and_results_fill_the_other_parameters(execute: Execute) -> None:
    @task
    def scale(item: int, factor: int, size: int) -> int:
        return item * factor + size

    with workflow("bound") as wf:
        discover >> scale(task_id="scaled", factor=10).map() >> task("end")(lambda scaled: scaled)
    assert execute(wf, initial_channel={"size": 3}) == [3, 13, 23]


def test_max_parallel_bounds_how_many_members_run_at_once(execute: Execute) -> None:
    @task(inject_context=True)
    def careful(context: TaskExecutionContext, item: int) -> int:
        channel = context.get_channel()
        now = channel.atomic_add("now")
        channel.append("seen", now)
        channel.atomic_add("now", -1)
        return item

    with workflow("window") as wf:
        discover >> careful.map(max_parallel=2) >> task("end")(lambda careful, seen: (careful, max(seen)))
    items, most = execute(wf, initial_channel={"size": 25})
    assert items == list(range(25))
    assert most <= 2


def test_a_strict_map_fails_and_names_the_members(execute: Execute) -> None:
    with workflow("strict") as wf:
        discover >> task("odd")(_only_even).map() >> task("end")(lambda: None)
    with pytest.raises(ParallelGroupError) as caught:
        execute(wf, initial_channel={"size": 4})
    assert [member for member, _ in caught.value.failed_tasks] == ["odd[1]", "odd[3]"]
    assert caught.value.successful_tasks == ["odd[0]", "odd[2]"]


def test_a_tolerant_map_hands_on_what_succeeded(execute: Execute) -> None:
    with workflow("tolerant") as wf:
        mapped = task("even")(_only_even).map().with_execution(policy=AtLeastNGroupPolicy(2))
        discover >> mapped >> task("end")(lambda even: even)
    assert execute(wf, initial_channel={"size": 5}) == [0, 2, 4]


def _only_even(item: int) -> int:
    if item % 2:
        raise ValueError(f"{item} is odd")
    return item


def test_members_are_retried_one_by_one(execute: Execute) -> None:
    @task(inject_context=True, retry_policy=RetryPolicy(max_retries=2, initial_interval=0.01))
    def flaky(context: TaskExecutionContext, item: int) -> tuple[int, int]:
        if context.retry_count < item:
            raise ConnectionError("not yet")
        return item, context.retry_count

    with workflow("flaky") as wf:
        discover >> flaky.map() >> task("end")(lambda flaky: [tuple(pair) for pair in flaky])
    assert execute(wf, initial_channel={"size": 3}) == [(0, 0), (1, 1), (2, 2)]


def test_a_map_over_a_group_and_a_map_inside_of_a_group(execute: Execute) -> None:
    with workflow("both") as wf:
        sizes = ParallelGroup([task("one")(lambda: 1), task("two")(lambda: 2)], name="sizes")
        inner = ParallelGroup([double.map(name="inner", over="numbers"), task("beside")(lambda: "x")], name="inside")
        sizes >> double.map(name="doubled") >> inner >> task("end")(lambda doubled, inside: (doubled, inside))
    result = execute(wf, initial_channel={"numbers": [5, 6]})
    assert result == ([2, 4], {"inner": [10, 12], "beside": "x"})


def test_a_map_in_a_loop_counts_its_items_in_each_pass(execute: Execute) -> None:
    @task(inject_context=True)
    def source(context: TaskExecutionContext) -> list[int]:
        return list(range(context.cycle_count))

    @task(inject_context=True)
    def again(context: TaskExecutionContext, double: list[int]) -> list[int]:
        context.get_channel().append("lists", double)
        if len(double) < 3:
            context.next_task("source")
        return double

    with workflow("loop") as wf:
        source >> double.map() >> again
    result, context = execute(wf, ret_context=True)
    assert result == [0, 2, 4]
    assert context.get_channel().get("lists") == [[0], [0, 2], [0, 2, 4]]


def test_a_members_position_is_in_its_id_and_its_result_can_be_asked_for(execute: Execute) -> None:
    with workflow("single") as wf:
        discover >> double.map() >> rank
    _, context = execute(wf, initial_channel={"size": 4}, ret_context=True)
    assert context.get_result("double[3]") == 6


@pytest.mark.parametrize("items", [5, "text", {"a": 1}, None])
def test_what_holds_no_items_is_an_error_that_says_so(execute: Execute, items: Any) -> None:
    with workflow("none") as wf:
        double.map(over="items") >> rank
    with pytest.raises(ParallelGroupError, match=r"'items' is a \w+; a list is needed|no result and no channel value"):
        execute(wf, initial_channel={"items": items})


def test_a_map_that_cannot_run_is_refused_before_it_runs() -> None:
    with pytest.raises(GraphCompilationError, match="needs a parameter that receives the item"):
        task("none")(lambda: None).map()
    with pytest.raises(GraphCompilationError, match="max_parallel=0"):
        double.map(max_parallel=0)
    with workflow("unclear") as wf:
        start, mapped = task("start")(lambda: 1), double.map()
        start >> task("list")(lambda: [1]) >> mapped
        start >> mapped
    with pytest.raises(GraphCompilationError, match="has 2 predecessors"):
        wf.plan()
