"""Public calls as a user writes them, for the type checker alone: nothing here runs.

What a change of a signature breaks here, it breaks in users' programs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, assert_type

from graflow_celery import (
    AtLeastNGroupPolicy,
    CriticalGroupPolicy,
    ExecutionContext,
    GraflowError,
    IdempotencyKey,
    ParallelGroup,
    ParallelGroupError,
    RetryReport,
    Run,
    RunStatus,
    SequentialTask,
    Settings,
    TaskExecutionContext,
    TaskGraph,
    TaskWrapper,
    WorkflowContext,
    chain,
    parallel,
    task,
    workflow,
)
from graflow_celery.ports import Channel, EventRecord
from graflow_celery.settings import load_settings
from graflow_celery.testing import embedded_cluster, wait_until


@task
def plain() -> int:
    return 1


@task("named")
def named_by_position(plain: int) -> int:
    return plain


@task(id="optioned", queue="slow", max_retries=2, soft_time_limit=10.0, on_worker_loss="fail", ship="reference")
def optioned(plain: int, factor: int = 2) -> int:
    return plain * factor


@task(inject_context=True)
def with_context(context: TaskExecutionContext, plain: int) -> str:
    assert_type(context.task_id, str)
    assert_type(context.session_id, str)
    assert_type(context.attempt, int)
    assert_type(context.retry_count, int)
    assert_type(context.idempotency_key, IdempotencyKey)
    assert_type(context.idempotency_key.once, str)
    channel = context.get_channel()
    assert_type(channel, Channel)
    assert_type(channel.append("list", 1), int)
    assert_type(channel.atomic_add("count"), int | float)
    assert_type(channel.keys(), list[str])
    return f"{plain} {context.get_result('plain')}"


def tasks_and_operators() -> None:
    assert_type(plain, TaskWrapper)
    assert_type(optioned, TaskWrapper)
    assert_type(plain.task_id, str)
    assert_type(plain.func, Callable[..., Any])
    assert_type(optioned.bind(task_id="other", factor=3), TaskWrapper)
    assert_type(plain >> optioned, SequentialTask)
    assert_type(optioned << plain, SequentialTask)
    assert_type(plain | optioned, ParallelGroup)
    assert_type(plain >> (optioned | with_context) >> named_by_position, SequentialTask)
    assert_type(chain(plain, optioned), SequentialTask)
    assert_type(parallel(plain, optioned), ParallelGroup)
    group = ParallelGroup([plain, plain >> optioned], name="group", policy="best_effort")
    assert_type(group.set_group_name("other"), ParallelGroup)
    assert_type(group.with_execution(policy=AtLeastNGroupPolicy(1)), ParallelGroup)
    assert_type(group.with_execution(policy=CriticalGroupPolicy(("plain",))), ParallelGroup)


def workflows(show: Callable[[EventRecord], None]) -> None:
    with workflow("typed") as wf:
        plain >> optioned
    assert_type(wf, WorkflowContext)
    assert_type(wf.graph, TaskGraph)
    assert_type(wf.to_mermaid(), str)
    assert_type(wf.to_dot(), str)
    wf.add(with_context)
    wf.execute()
    wf.execute("plain", initial_channel={"factor": 3}, timeout=10.0, progress=show)
    wf.execute(backend="celery", settings=load_settings(redis_url="redis://127.0.0.1:6379/0"))
    wf.execute(progress=True)
    _, context = wf.execute(ret_context=True)
    assert isinstance(context, ExecutionContext)
    wf.execute(backend="threads")  # type: ignore[arg-type]
    workflow()  # type: ignore[call-arg]


def runs(wf: WorkflowContext) -> None:
    run = wf.submit(run_id="once", require_workers=True)
    assert_type(run, Run)
    assert_type(Run.get("once"), Run)
    assert_type(run.id, str)
    assert_type(run.status, RunStatus)
    assert_type(run.reason, str)
    assert_type(run.started_at, float)
    assert_type(run.finished_at, float | None)
    assert_type(run.wait(timeout=1.0), RunStatus)
    assert_type(run.wait(progress=True), RunStatus)
    run.wait(progress=print)
    run.wait(progress="yes")  # type: ignore[arg-type]
    assert_type(run.results(), dict[str, Any])
    assert_type(run.events(follow=True), Iterator[EventRecord])
    assert_type(run.context, ExecutionContext)
    assert_type(run.cancel("enough"), bool)
    assert_type(run.retry_failed(), RetryReport)
    assert_type(run.retry_failed("clean", dry_run=True).again, tuple[str, ...])


def failures(wf: WorkflowContext) -> None:
    try:
        wf.execute()
    except ParallelGroupError as error:
        assert_type(error.group_id, str)
        assert_type(error.failed_tasks, list[tuple[str, str | None]])
        assert_type(error.successful_tasks, list[str])
    except GraflowError as error:
        assert_type(error.exit_code, int)
        assert_type(error.message, str)


def tests_of_workflows(wf: WorkflowContext) -> None:
    with embedded_cluster(workers=2, concurrency=1) as cluster:
        assert_type(cluster.settings, Settings)
        assert_type(cluster.env, dict[str, str])
        wf.execute(backend="celery", settings=cluster.settings)
    assert_type(wait_until(lambda: len("abc"), timeout=1.0, description="a length"), int)
