"""Our side of the benchmarks."""

from __future__ import annotations

from graflow_celery import ParallelGroup, WorkflowContext, chain, task, workflow
from graflow_celery.core.expr import Executable


@task
def noop() -> int:
    return 1


@task
def collect() -> int:
    return 1


def fan_out(members: int) -> WorkflowContext:
    """One group of ``members`` no-op tasks, its barrier, one task after it."""
    with workflow(f"fan-out {members}") as wf:
        ParallelGroup([noop(task_id=f"m{index}") for index in range(members)], name="members") >> collect
    return wf


def barriers(count: int, members: int) -> WorkflowContext:
    """``count`` groups of ``members`` no-op tasks, one after the other."""
    with workflow(f"{count} barriers") as wf:
        groups: list[Executable] = [
            ParallelGroup([noop(task_id=f"g{group}m{index}") for index in range(members)], name=f"g{group}")
            for group in range(count)
        ]
        chain(*groups)
    return wf


def line(length: int) -> WorkflowContext:
    """A chain of ``length`` no-op tasks."""
    with workflow(f"chain {length}") as wf:
        chain(*(noop(task_id=f"n{index}") for index in range(length)))
    return wf
