"""Our side's workflows."""

from __future__ import annotations

import os
from collections.abc import Sequence

from graflow_celery import ParallelGroup, WorkflowContext, task, workflow
from tests.bench.faults.gate import NODE, pass_gate


@task
def held(work: str, label: str) -> str:
    return pass_gate(work, label)


@task(on_worker_loss="fail")
def brittle(work: str, label: str) -> str:
    return pass_gate(work, label)


@task
def burn(count: int) -> str:
    """One call in C that holds the GIL."""
    sum(range(count))
    return os.environ[NODE]


@task
def collect() -> int:
    return 1


def gated(work: str, labels: Sequence[str], *, fail_fast: bool = False) -> WorkflowContext:
    """A group of tasks that wait for the gate, and a task after it."""
    member = brittle if fail_fast else held
    with workflow("faults") as wf:
        ParallelGroup([member(task_id=label, work=work, label=label) for label in labels], name="members") >> collect
    return wf


def burning(members: int, count: int) -> WorkflowContext:
    with workflow("burning") as wf:
        ParallelGroup([burn(task_id=f"burn{index}", count=count) for index in range(members)], name="members")
    return wf
