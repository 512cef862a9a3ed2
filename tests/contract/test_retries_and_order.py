"""Retries that wait, and which of the ready tasks goes first."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from graflow_celery import (
    GroupExecutionPolicy,
    ParallelGroup,
    ParallelGroupError,
    RetryPolicy,
    Scheduler,
    Settings,
    TaskExecutionContext,
    task,
    workflow,
)
from graflow_celery.core.plan import NodeSpec
from graflow_celery.core.policy import MemberOutcome, TaskResult
from graflow_celery.errors import ConfigError
from graflow_celery.local import LocalRun
from tests.contract.conftest import Execute


@task(inject_context=True, retry_policy=RetryPolicy(max_retries=3, initial_interval=0.1, backoff_factor=2.0))
def flaky(context: TaskExecutionContext) -> list[float]:
    context.get_channel().append("begun", time.time())
    if context.retry_count < 3:
        raise ConnectionError(f"no answer, try {context.retry_count}")
    begun: list[float] = context.get_channel().get("begun")
    return [later - earlier for earlier, later in itertools.pairwise(begun)]


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


@dataclass(frozen=True)
class Half:
    """A group policy of the user's own."""

    share: float

    def judge(self, outcomes: Sequence[MemberOutcome]) -> str | None:
        succeeded = sum(outcome.succeeded for outcome in outcomes)
        return None if succeeded >= self.share * len(outcomes) else f"only {succeeded} of {len(outcomes)} succeeded"


class NoFirst(GroupExecutionPolicy):
    """A policy as one writes it for graflow."""

    def on_group_finished(
        self, group_id: str, tasks: Sequence[Any], results: dict[str, TaskResult], context: Any
    ) -> None:
        if not results["first"].success:
            raise ParallelGroupError("the first one failed", group_id, [], [])


def broken() -> None:
    raise ValueError("no")


@pytest.mark.parametrize(
    ("policy", "message"),
    [(Half(0.5), None), (Half(0.9), "only 1 of 2 succeeded"), (NoFirst(), "the first one failed")],
)
def test_a_group_policy_of_ones_own_judges_on_either_backend(
    execute: Execute, policy: Any, message: str | None
) -> None:
    with workflow("own") as wf:
        ParallelGroup([task("first")(broken), task("second")(lambda: 2)], name="both", policy=policy) >> task("end")(
            lambda both: both
        )
    if message is None:
        assert execute(wf) == {"second": 2}
        return
    with pytest.raises(ParallelGroupError, match=message) as caught:
        execute(wf)
    assert caught.value.failed_tasks == [("first", "ValueError: no")]


@pytest.mark.workers
def test_workers_send_ready_tasks_in_the_order_of_the_scheduling_policy(graflow_settings: Settings) -> None:
    with workflow("sent", scheduling=ByName()) as wf:
        start = task("start")(lambda: None)
        for name in ("c", "a", "d", "b"):
            start >> task(name)(lambda: None)
    run = wf.submit(settings=graflow_settings)
    run.wait(timeout=30)
    seen = [event["node"] for event in run.events() if event["event"] == "node_started"]
    assert sorted(seen) == ["a", "b", "c", "d", "start"]
    plan = run.plan
    assert sorted(plan.nodes, key=lambda node: Scheduler().rank(plan, node)) == ["a", "b", "c", "d", "start"]
