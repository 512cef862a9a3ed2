"""Our side of the benchmarks."""

from __future__ import annotations

import time
from collections.abc import Sequence

from graflow_celery import ParallelGroup, TaskExecutionContext, WorkflowContext, chain, task, workflow
from graflow_celery.core.expr import Executable
from tests.bench.speed import work


@task
def noop() -> int:
    return 1


@task
def collect() -> int:
    return 1


@task
def nap(seconds: float) -> int:
    work.nap(seconds)
    return 1


@task
def uneven(seconds: float) -> int:
    """As `nap`, for members of one task that differ: the engine learns how long a task takes, of each by itself."""
    work.nap(seconds)
    return 1


@task
def rest(seconds: float) -> int:
    """As `nap`, for idle periods."""
    work.nap(seconds)
    return 1


@task
def burn(seconds: float) -> int:
    work.burn(seconds)
    return 1


@task
def clock() -> float:
    return time.monotonic()


@task(inject_context=True)
def since_last(context: TaskExecutionContext, members: int) -> float:
    """Seconds from the end of the last member to its own begin."""
    began = time.monotonic()
    return began - max(float(context.get_result(f"m{index}")) for index in range(members))


def fan_out(members: int, name: str = "") -> WorkflowContext:
    """One group of ``members`` no-op tasks, its barrier, one task after it."""
    with workflow(name or f"fan-out {members}") as wf:
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


WORKING = {"nap": nap, "uneven": uneven, "burn": burn}


def working(kind: str, pieces: Sequence[float]) -> WorkflowContext:
    """A group whose members work for so many seconds each, and one task after it. ``kind``: one of `WORKING`."""
    with workflow(f"{len(pieces)} of {kind}") as wf:
        members = [WORKING[kind](task_id=f"m{index}", seconds=seconds) for index, seconds in enumerate(pieces)]
        ParallelGroup(members, name="members") >> collect
    return wf


def idle(seconds: float) -> WorkflowContext:
    """One node, which takes that long."""
    with workflow("idle") as wf:
        rest(task_id="rest", seconds=seconds)
    return wf


def first() -> WorkflowContext:
    """One node; its result says when it began."""
    with workflow("first") as wf:
        clock(task_id="clock")
    return wf


def after_barrier(members: int) -> WorkflowContext:
    """A group, and a node after it that says how long ago the last member ended."""
    with workflow("after the barrier") as wf:
        ends = [clock(task_id=f"m{index}") for index in range(members)]
        ParallelGroup(ends, name="members") >> since_last(task_id="since", members=members)
    return wf
