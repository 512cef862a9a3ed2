"""Retries that wait, and which of the ready tasks goes first."""

from __future__ import annotations

import time
from typing import Any

import pytest

from graflow_celery import ParallelGroup, RetryPolicy, TaskExecutionContext, task, workflow
from graflow_celery.core.plan import NodeSpec
from graflow_celery.errors import ConfigError
from graflow_celery.local import LocalRun
from tests.contract.conftest import Execute


@task(inject_context=True, retry_policy=RetryPolicy(max_retries=3, initial_interval=0.1, backoff_factor=2.0))
def flaky(context: TaskExecutionContext) -> list[float]:
    context.get_channel().append("begun", time.time())
    if context.retry_count < 3:
        raise ConnectionError(f"no answer, try {context.retry_count}")
    begun: list[float] = context.get_channel().get("begun")
    return [later - earlier for earlier, later in zip(begun, begun[1:], strict=False)]


def test_each_retry_waits_longer(execute: Execute) -> None:
    with workflow("backoff") as wf:
        wf.add(flaky)
    waits = execute(wf)
    assert len(waits) == 3
    assert all(wait >= least for wait, least in zip(waits, (0.1, 0.2, 0.4), strict=True)), waits


def test_the_last_error_is_raised_as_it_is(execute: Execute) -> None:
    @task(inject_context=True, retry_policy=RetryPolicy(max_retries=2, initial_interval=0.01))
    def never(context: TaskExecutionContext) -> None:
        raise LookupError(f"attempt {context.retry_count + 1} of {context.max_retries + 1}")

    with workflow("never") as wf:
        wf.add(never)
    with pytest.raises(LookupError, match="attempt 3 of 3"):
        execute(wf)


def test_a_member_that_waits_for_its_retry_holds_no_other_up(execute: Execute) -> None:
    @task
    def quick() -> float:
        return time.time()

    with workflow("beside") as wf:
        ParallelGroup([flaky, quick(task_id="first"), quick(task_id="second")], name="both") >> task("end")(
            lambda both: (min(both["first"], both["second"]), sum(both["flaky"]))
        )
    _, waited = execute(wf)
    assert waited >= 0.7


def test_retries_of_each_iteration_are_counted_by_themselves_over_the_activation(execute: Execute) -> None:
    @task(inject_context=True, max_retries=1)
    def once(context: TaskExecutionContext, number: int = 0) -> Any:
        if number == 0 and context.retry_count == 0:
            raise ValueError("first")
        if number < 2:
            context.next_iteration(number + 1)
        return number, context.retry_count, context.cycle_count

    with workflow("iterations") as wf:
        wf.add(once)
    assert tuple(execute(wf)) == (2, 1, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_retries": -1}, "max_retries=-1 must not be negative"),
        ({"initial_interval": -0.1}, r"initial_interval=-0\.1 must not be negative"),
        ({"backoff_factor": 0.5}, r"backoff_factor=0\.5 must be at least 1"),
    ],
)
def test_a_retry_policy_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RetryPolicy(**fields)


class ByName:
    """A scheduling policy of the user's own."""

    def rank(self, node: NodeSpec) -> str:
        return node.id


def order(scheduling: Any) -> list[str]:
    """In which order one thread runs tasks that are ready at the same time."""

    @task(inject_context=True)
    def note(context: TaskExecutionContext) -> None:
        context.get_channel().append("order", context.task_id)

    with workflow("order", scheduling=scheduling) as wf:
        members = [
            task(name, inject_context=True, priority=value)(note.func)
            for name, value in (("c", 1), ("a", None), ("d", 9), ("b", 5))
        ]
        ParallelGroup(members, name="all")
    run = LocalRun(wf, policy=wf.scheduling, threads=1)
    run.execute(timeout=30)
    found: list[str] = run.channel.get("order")
    return found


def test_ready_tasks_start_in_the_order_of_the_scheduling_policy() -> None:
    assert order("fifo") == ["c", "a", "d", "b"]
    assert order("priority") == ["d", "b", "c", "a"]
    assert order(ByName()) == ["a", "b", "c", "d"]


def test_an_unknown_scheduling_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="Unknown scheduling policy 'lifo'"):
        workflow("w", scheduling="lifo")
