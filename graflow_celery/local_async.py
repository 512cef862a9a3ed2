"""Runs workflows here for programs with an event loop: many at a time, on one bounded pool of threads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.errors import RunTimeoutError
from graflow_celery.local import LocalRun, default_threads, inside_node
from graflow_celery.ports import EventRecord
from graflow_celery.threads import POOLS

Progress = Callable[[EventRecord], None]
News = EventRecord | None

_LEFT = "the program that waited for it did not wait to the end"


async def execute(
    definition: WorkflowDefinition,
    *,
    timeout: float | None = None,
    progress: Progress | None = None,
    made: Callable[[LocalRun], None] | None = None,
    **options: Any,
) -> LocalRun:
    """Runs a workflow until it has ended and nothing of it works any more; the answer gives ``result()``.

    On a timeout, and when the caller is cancelled, the run is cancelled: nothing more of it starts, ``async def`` tasks
    are cancelled, and what else runs goes on to its end. After a timeout that end is waited for.

    Args:
        progress: called in the event loop, with each event of the run, in their order.
        made: is given the run before it starts.
        options: more of :class:`LocalRun`'s.

    Raises:
        RunTimeoutError: ``timeout`` seconds went by.
        Exception: what ``progress`` raised; the run is cancelled then.
    """
    own = ThreadPoolExecutor(default_threads(), thread_name_prefix="graflow") if inside_node.get() else None
    news: asyncio.Queue[News] = asyncio.Queue()
    tell = _Teller(asyncio.get_running_loop(), news)

    def idle() -> None:
        run.close()
        if own is not None:
            own.shutdown(wait=False)
        tell(None)

    observer = tell if progress is not None else None
    run = LocalRun(definition, observer=observer, pool=own or POOLS.nodes(), **options)
    if made is not None:
        made(run)
    run.when_ended(lambda: run.stop(idle))
    run.start()
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            await _take(news, progress)
    except TimeoutError as error:
        if not limit.expired():
            run.cancel(_LEFT)
            raise
        run.cancel(f"it did not end within {timeout:g} s")
        await _take(news, progress)
        raise RunTimeoutError(run.run.id, timeout or 0.0, "Give it more time: timeout=...") from error
    except BaseException:
        run.cancel(_LEFT)
        raise
    return run


class _Teller:
    """Puts news into a loop's queue from any thread. Where the loop has ended, nobody waits for them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, news: asyncio.Queue[News]) -> None:
        self._loop = loop
        self._news = news

    def __call__(self, record: News) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._news.put_nowait, record)


async def _take(news: asyncio.Queue[News], progress: Progress | None) -> None:
    """Hands news on until the run has ended."""
    while (record := await news.get()) is not None:
        if progress is not None:
            progress(record)
