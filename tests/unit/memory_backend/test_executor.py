"""Which of the nodes that are ready a thread takes first."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from graflow_celery import ParallelGroup, PriorityPolicy, TaskExecutionContext, task, workflow
from graflow_celery.local import LocalRun


class AtOnce(Executor):
    """A pool whose threads are as quick as can be: what is submitted has run when ``submit`` returns."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def test_members_of_a_group_are_ranked_before_the_first_of_them_starts() -> None:
    def note(context: TaskExecutionContext) -> None:
        context.get_channel().append("order", context.task_id)

    with workflow("ranked") as wf:
        first = task("first")(lambda: None)
        ranks = {"low": 1, "none": None, "high": 9, "middle": 5}
        members = [task(name, priority=rank, inject_context=True)(note) for name, rank in ranks.items()]
        first >> ParallelGroup(members, name="members")

    run = LocalRun(wf, threads=2, pool=AtOnce(), policy=PriorityPolicy())
    run.execute(timeout=10)
    assert run.context.get_channel().get("order") == ["high", "middle", "low", "none"]
