"""A row of Flower's list of tasks, so that it says at a glance what it is."""

from __future__ import annotations

from typing import Any

from graflow_celery.celery_backend.compiler import BARRIER_TASK, NODE_TASK


def format_task(task: Any) -> Any:
    """Names a task of ours by what it runs: ``etl clean #1`` (workflow, node, attempt). Others stay as they are.

    Flower's option ``format_task``; one that a configuration file sets takes its place.
    """
    if task.name in (NODE_TASK, BARRIER_TASK) and task.args:
        task.name = f"{task.name} {task.args}"
    return task
