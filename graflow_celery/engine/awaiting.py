"""An attempt in steps: it pauses where its function is an ``async def`` one, and its coroutine has to be run.

The engine runs no event loop. Who drives an attempt does, and may wait in the thread that it is in, as a Celery worker
does, or let the thread go and resume the attempt in another one, as local runs do.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator
from typing import Any

from graflow_celery.core.state import Applied
from graflow_celery.errors import AsyncGeneratorError

Awaited = Coroutine[Any, Any, Any]
#: Yields a coroutine at most once and takes what came of it.
Steps = Generator[Awaited, Any, Applied]


def settled(value: Any, task_id: str) -> Generator[Awaited, Any, Any]:
    """The result behind what a function returned: a coroutine is yielded to be run, any other value is its own.

    It goes by the value and not by the function, so that a partial, a method, a callable object or a decorator around
    an ``async def`` function are taken for what they are.

    Raises:
        AsyncGeneratorError: the function is an async generator.
    """
    if isinstance(value, Coroutine):
        return (yield value)
    if isinstance(value, AsyncGenerator):
        raise AsyncGeneratorError(task_id)
    return value


def advance(steps: Steps, value: Any = None, error: BaseException | None = None) -> Awaited | Applied:
    """Goes on with the outcome of the coroutine that was yielded last, or begins: until another one, or the end."""
    try:
        return steps.send(value) if error is None else steps.throw(error)
    except StopIteration as end:
        applied: Applied = end.value
        return applied
