"""Priorities and queues, as Celery has them: a queue names who works, a priority who waits (on Redis, 0 goes first).
Run it: graflow-celery run examples/12_priorities_and_queues.py --backend embedded --workers 1"""

import lzma
import sysconfig
from pathlib import Path
from typing import Any

from graflow_celery import ParallelGroup, TaskExecutionContext, task, workflow


def packed(context: TaskExecutionContext, file: str) -> int:
    context.get_channel().append("order", file)
    return len(lzma.compress(Path(sysconfig.get_path("stdlib"), file).read_bytes()))


@task(queue="packing", priority=9, inject_context=True)
def later(context: TaskExecutionContext, file: str) -> int:
    return packed(context, file)


@task(queue="packing", priority=0, inject_context=True)
def soon(context: TaskExecutionContext, file: str) -> int:
    return packed(context, file)


@task
def report(sizes: dict[str, int], order: list[str]) -> dict[str, Any]:
    return {"sizes": sizes, "order": order}


with workflow("priorities_and_queues") as wf:
    patient = [later(task_id=file, file=file) for file in ("argparse.py", "ast.py", "calendar.py", "pdb.py")]
    urgent = [soon(task_id=file, file=file) for file in ("heapq.py", "queue.py")]
    ParallelGroup([*patient, *urgent], name="sizes") >> report
