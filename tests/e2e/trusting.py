"""Functions that workers import, for `test_serializers` and `test_secrets`."""

from __future__ import annotations

from typing import Any

from graflow_celery.core.task import TaskWrapper
from graflow_celery.engine.task_context import TaskExecutionContext


class Refusal(Exception):
    """An exception that no process knows of its own."""


def plain() -> dict[str, Any]:
    return {"rows": [1, 2, 3], "text": "x" * 200_000}


def count(plain: dict[str, Any]) -> list[int]:
    return [len(plain["text"]), *plain["rows"]]


def pair() -> tuple[int, int]:
    return (1, 2)


def put(context: TaskExecutionContext) -> None:
    context.get_channel().set("pair", (1, 2))


def refuse() -> None:
    raise Refusal("not today", 7)


def given(value: Any) -> str:
    return type(value).__name__


def array() -> Any:
    import numpy

    return {"a": numpy.arange(50_000), "pair": (b"x", {1, 2})}


def total(array: dict[str, Any]) -> tuple[int, tuple[bytes, set[int]]]:
    return int(array["a"].sum()), array["pair"]


def large(value: str = "x") -> dict[str, Any]:
    """What is pickled, and too large for a field."""
    return {"pair": (value, b"\0\1" * 100_000)}


def follow(large: dict[str, Any]) -> dict[str, Any]:
    return {"pair": (large["pair"][0] + "y", large["pair"][1])}


def finish(follow: dict[str, Any]) -> tuple[str, int]:
    return follow["pair"][0] + "z", len(follow["pair"][1])


def on(queue: str, func: Any) -> TaskWrapper:
    """``func`` as a task of that queue."""
    from graflow_celery import task

    wrapper: TaskWrapper = task(id=func.__name__, queue=queue)(func)
    return wrapper
