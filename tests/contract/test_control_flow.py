"""Cycles, jumps, iterations, added tasks, ends: the same in threads and on Celery workers."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from graflow_celery import (
    GraflowWorkflowCanceledError,
    ParallelGroup,
    ParallelGroupError,
    TaskExecutionContext,
    task,
    workflow,
)
from graflow_celery.errors import CycleLimitExceededError, DuplicateTaskError, GraflowRuntimeError
from tests.contract.conftest import Execute


@task(inject_context=True)
def note(context: TaskExecutionContext) -> int:
    """Counts its own runs."""
    return int(context.get_channel().atomic_add(f"runs of {context.task_id}"))


def runs(context: Any, *nodes: str) -> list[int]:
    return [context.get_channel().get(f"runs of {node}", 0) for node in nodes]


def test_an_edge_back_runs_its_target_again_until_the_run_is_terminated(execute: Execute) -> None:
    @task(inject_context=True)
    def agent(context: TaskExecutionContext) -> int:
        if context.cycle_count == 4:
            context.terminate_workflow("it knows enough")
        return context.cycle_count

    with workflow("loop") as wf:
        agent >> note(task_id="tool") >> agent
    result, context = execute(wf, ret_context=True)
    assert result == 4
    assert runs(context, "tool") == [3]


def test_a_jump_skips_the_successors_and_a_join_after_it_waits_for_what_the_jump_reaches(execute: Execute) -> None:
    @task(inject_context=True)
    def check(context: TaskExecutionContext) -> None:
        context.next_task("slow")

    fast, slow, end = note(task_id="fast"), note(task_id="slow"), note(task_id="end")
    with workflow("choice") as wf:
        check >> fast >> end
        check >> slow >> end
    result, context = execute(wf, ret_context=True)
    assert result == 1
    assert runs(context, "fast", "slow", "end") == [0, 1, 1]


def test_a_task_jumps_back_until_it_is_content(execute: Execute) -> None:
    @task(inject_context=True)
    def review(context: TaskExecutionContext, draft: int) -> str:
        if draft < 3:
            context.next_task("draft")
        return f"draft {draft}"

    with workflow("rework") as wf:
        note(task_id="draft") >> review >> note(task_id="publish")
    result, context = execute(wf, ret_context=True)
    assert result == 1
    assert context.get_result("review") == "draft 3"


def test_a_task_that_is_first_reached_in_a_later_pass_counts_its_runs_from_one(execute: Execute) -> None:
    @task(inject_context=True)
    def review(context: TaskExecutionContext, draft: int) -> None:
        if draft < 3:
            context.next_task("draft")

    @task(inject_context=True)
    def publish(context: TaskExecutionContext) -> int:
        if context.cycle_count < 3:
            context.next_iteration()
        return int(context.get_channel().append("cycles", context.cycle_count))

    with workflow("late") as wf:
        note(task_id="draft") >> review >> publish
    result, context = execute(wf, ret_context=True)
    assert result == 3
    assert context.get_channel().get("cycles") == [1, 2, 3]


def test_an_iteration_receives_what_was_handed_on_and_successors_wait_for_the_last(execute: Execute) -> None:
    @task(inject_context=True)
    def halve(context: TaskExecutionContext, number: int = 64) -> int:
        if number > 3 and context.can_iterate():
            context.next_iteration(number // 2)
        return number

    @task
    def after(halve: int) -> int:
        return halve

    with workflow("iterate") as wf:
        halve >> after
    assert execute(wf) == 2


def test_iterations_end_with_an_error_at_max_cycles(execute: Execute) -> None:
    @task(inject_context=True, max_cycles=3)
    def forever(context: TaskExecutionContext) -> None:
        context.get_channel().atomic_add("runs")
        context.next_iteration()

    with workflow("forever") as wf:
        wf.add(forever)
    with pytest.raises(CycleLimitExceededError) as caught:
        execute(wf)
    assert (caught.value.task_id, caught.value.cycle_count, caught.value.max_cycles) == ("forever", 3, 3)


def test_max_cycles_holds_for_cycles_of_edges_too(execute: Execute) -> None:
    with workflow("edges") as wf:
        a = task("a", max_cycles=3)(lambda: 1)
        a >> note(task_id="b") >> a
    with pytest.raises(CycleLimitExceededError):
        execute(wf)


def test_a_run_out_of_steps_ends_as_terminated_with_what_it_has(execute: Execute) -> None:
    first, second = note(task_id="first"), note(task_id="second")
    with workflow("endless") as wf:
        first >> second >> first
    result, context = execute(wf, max_steps=5, ret_context=True)
    assert result == 3
    assert runs(context, "first", "second") == [3, 2]


def test_a_new_task_runs_before_the_successors_which_see_its_result(execute: Execute) -> None:
    @task(inject_context=True)
    def plan(context: TaskExecutionContext) -> str:
        @task
        def extra(plan: str) -> str:
            return f"{plan} and extra"

        assert context.next_task(extra) == "extra"
        return "planned"

    @task
    def after(extra: str) -> str:
        return extra

    with workflow("added") as wf:
        plan >> after
    assert execute(wf) == "planned and extra"


def test_added_tasks_add_tasks_and_chains_and_groups(execute: Execute) -> None:
    @task(inject_context=True)
    def count(context: TaskExecutionContext, left: int = 3) -> int:
        if left:
            follower = note(task_id=f"side {left}")
            context.next_task(count(task_id=f"count {left}", left=left - 1) >> follower)
            context.next_task(ParallelGroup([note(task_id=f"x{left}"), note(task_id=f"y{left}")], name=f"g{left}"))
        return left

    with workflow("nest") as wf:
        count >> note(task_id="end")
    result, context = execute(wf, ret_context=True)
    assert result == 1
    assert runs(context, "side 1", "side 2", "side 3", "x1", "y3") == [1, 1, 1, 1, 1]


def test_a_new_task_with_goto_runs_in_place_of_the_successors(execute: Execute) -> None:
    @task(inject_context=True)
    def start(context: TaskExecutionContext) -> None:
        context.next_task(note(task_id="instead"), goto=True)

    with workflow("instead") as wf:
        start >> note(task_id="never")
    _, context = execute(wf, ret_context=True)
    assert runs(context, "instead", "never") == [1, 0]


def test_a_task_may_add_the_same_task_again_in_each_pass(execute: Execute) -> None:
    @task(inject_context=True)
    def loop(context: TaskExecutionContext, number: int = 0) -> int:
        context.next_task(note(task_id="again"))
        return number

    @task(inject_context=True)
    def back(context: TaskExecutionContext) -> int:
        if context.cycle_count < 3:
            context.next_task("loop")
        return context.cycle_count

    with workflow("again") as wf:
        loop >> back
    result, context = execute(wf, ret_context=True)
    assert result == 3
    assert runs(context, "again") == [3]


def test_a_failed_added_task_fails_the_run_with_its_own_error(execute: Execute) -> None:
    @task(inject_context=True)
    def start(context: TaskExecutionContext) -> None:
        @task
        def broken() -> None:
            raise ZeroDivisionError("no items")

        context.next_task(broken)

    with workflow("broken") as wf:
        start >> note(task_id="never")
    with pytest.raises(ZeroDivisionError, match="no items"):
        execute(wf)


def test_an_added_task_must_not_have_a_part_that_the_workflow_has(execute: Execute) -> None:
    @task(inject_context=True)
    def start(context: TaskExecutionContext) -> None:
        context.next_task(note(task_id="new") >> note(task_id="end"))

    with workflow("twice") as wf:
        start >> note(task_id="end")
    with pytest.raises(DuplicateTaskError, match="'end'"):
        execute(wf)


def test_members_iterate_jump_within_themselves_and_add_tasks(execute: Execute) -> None:
    @task(inject_context=True)
    def draft(context: TaskExecutionContext) -> int:
        return int(context.get_channel().atomic_add("drafts"))

    @task(inject_context=True)
    def review(context: TaskExecutionContext, draft: int) -> str:
        if draft < 3:
            context.next_task("draft")
        return f"draft {draft}"

    @task(inject_context=True)
    def iterates(context: TaskExecutionContext, number: int = 0) -> int:
        if number < 2:
            context.next_iteration(number + 1)
        return number

    @task(inject_context=True)
    def adds(context: TaskExecutionContext) -> str:
        context.next_task(note(task_id="side"))
        return "added"

    @task
    def after(members: dict[str, Any], side: int) -> Any:
        return members, side

    with workflow("members") as wf:
        ParallelGroup([draft >> review, iterates, adds], name="members") >> after
    assert execute(wf) == ({"review": "draft 3", "iterates": 2, "adds": "added"}, 1)


def test_a_member_that_jumps_out_of_its_group_does_so_at_the_barrier(execute: Execute) -> None:
    @task(inject_context=True)
    def alarm(context: TaskExecutionContext) -> str:
        context.next_task("repair")
        return "alarm"

    group = ParallelGroup([alarm >> note(task_id="unreached"), note(task_id="other")], name="group")
    with workflow("out") as wf:
        group >> note(task_id="usual") >> note(task_id="repair")
    _, context = execute(wf, ret_context=True)
    assert runs(context, "usual", "unreached", "other", "repair") == [0, 0, 1, 1]


def test_a_jump_into_a_group_or_to_another_member_is_refused(execute: Execute) -> None:
    @task(inject_context=True)
    def start(context: TaskExecutionContext) -> None:
        context.next_task("inside")

    with workflow("into") as wf:
        start >> ParallelGroup([note(task_id="inside"), note(task_id="beside")], name="group")
    with pytest.raises(GraflowRuntimeError, match="inside of parallel group 'group'"):
        execute(wf)


def test_terminate_in_a_member_ends_the_run_with_that_members_result(execute: Execute) -> None:
    @task(inject_context=True)
    def found(context: TaskExecutionContext) -> str:
        context.terminate_workflow("found it")
        return "here"

    with workflow("search") as wf:
        ParallelGroup([found, note(task_id="other")], name="group") >> note(task_id="never")
    result, context = execute(wf, ret_context=True)
    assert result == "here"
    assert runs(context, "never") == [0]


@pytest.mark.parametrize("inside", [False, True])
def test_cancel_ends_the_run_with_an_error_that_names_the_task(execute: Execute, inside: bool) -> None:
    @task(inject_context=True)
    def stop(context: TaskExecutionContext) -> None:
        context.cancel_workflow("no budget left")

    with workflow("cancel") as wf:
        members = ParallelGroup([stop, note(task_id="other")], name="group", policy="best_effort") if inside else stop
        members >> note(task_id="never")
    with pytest.raises(GraflowWorkflowCanceledError, match="no budget left") as caught:
        execute(wf)
    assert caught.value.task_id == "stop"


def test_next_task_and_next_iteration_exclude_each_other(execute: Execute) -> None:
    @task(inject_context=True)
    def both(context: TaskExecutionContext) -> None:
        context.next_iteration()
        context.next_task(note(task_id="other"))

    with workflow("both") as wf:
        wf.add(both)
    with pytest.raises(GraflowRuntimeError, match="not both"):
        execute(wf)


def test_a_group_whose_time_is_up_is_judged_by_what_has_ended(execute: Execute) -> None:
    @task
    def after(group: dict[str, Any]) -> Any:
        return group

    with workflow("late") as wf:
        group = ParallelGroup([note(task_id="quick"), stuck], name="group", policy="best_effort", timeout=0.5)
        group >> after
    assert execute(wf) == {"quick": 1}


@task
def stuck() -> None:
    """Takes longer than the group's timeout."""
    threading.Event().wait(5.0)


def test_a_strict_group_whose_time_is_up_fails_and_names_who_was_late(execute: Execute) -> None:
    with workflow("late") as wf:
        ParallelGroup([note(task_id="quick"), stuck], name="group", timeout=0.5) >> note(task_id="never")
    with pytest.raises(ParallelGroupError, match=r"stuck: it did not end within the group's timeout of 0\.5 s"):
        execute(wf)
