"""Functions that workers import, for `test_forged_values`."""

from __future__ import annotations

from typing import Any

from graflow_celery.engine.task_context import TaskExecutionContext


def reads(context: TaskExecutionContext) -> str:
    return type(context.get_channel().get("value")).__name__


def takes(value: Any) -> str:
    return type(value).__name__
