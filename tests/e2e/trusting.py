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


def loaded() -> list[str]:
    import sys

    return sorted({"numpy", "pandas", "pyarrow"} & set(sys.modules))


def frames() -> dict[str, Any]:
    import numpy
    import pandas
    import pyarrow

    frame = pandas.DataFrame({"n": range(20_000), "kind": pandas.Categorical(["a", "b"] * 10_000)})
    array = numpy.asfortranarray(numpy.arange(60_000.0).reshape(300, 200))
    return {"frame": frame, "table": pyarrow.table({"x": range(30_000)}), "array": array, "small": numpy.arange(3)}


def copied(frames: dict[str, Any]) -> dict[str, Any]:
    """Changes what it was given, and gives it back."""
    frames["array"][0, 0] = -1
    frames["frame"].loc[0, "n"] = -1
    return frames


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
