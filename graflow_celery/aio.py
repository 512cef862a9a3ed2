"""Runs on Celery workers, for programs with an event loop: ``await run``, ``async for event in run.aevents()``.

However many runs are awaited, a loop has two connections to the server, and the process a few threads, in which the
client's blocking calls are made.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, Protocol, TypeVar

from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import RunStatus
from graflow_celery.errors import RunNotFoundError, RunTimeoutError
from graflow_celery.ports import EventRecord
from graflow_celery.redis_backend.async_events import EventHub, hub_of
from graflow_celery.redis_backend.client import reported
from graflow_celery.threads import call

Progress = Callable[[EventRecord], None]

_CANCELLED = "the program that waited for it was cancelled"
_WAITING = f"run_{RunStatus.WAITING}"
_ENDS = frozenset(f"run_{status}" for status in RunStatus if status.is_terminal)
#: A run without news is asked for its workers after a heartbeat_timeout, then ever less often, at last every minute.
_RAREST_LOOK = 60.0


class ClientRun(Protocol):
    """What is asked of a run here; :class:`graflow_celery.Run` is one."""

    @property
    def id(self) -> str: ...

    @property
    def plan(self) -> Plan: ...

    @property
    def status(self) -> RunStatus: ...

    def result(self) -> Any: ...

    def cancel(self, reason: str = "") -> bool: ...

    def has_ended_with(self, record: EventRecord) -> bool: ...


Submitted = TypeVar("Submitted", bound=ClientRun)


async def wait(runtime: Runtime, run: ClientRun) -> Any:
    """Waits until a run has ended, or waits for a person, and returns its last result, or raises what it raises."""
    await _ended(runtime, run)
    return await call(run.result)


async def aevents(runtime: Runtime, run: ClientRun) -> AsyncGenerator[EventRecord, None]:
    """A run's events from the first on and those to come, until it has ended or waits for a person.

    While nothing happens it tells of queues without a live worker:
    ``{"event": "workers_missing", "queues": [...]}``.

    Raises:
        RunNotFoundError: the store has the run no more.
        StoreUnavailableError: the server has not answered for long.
    """
    keys = runtime.keys.run(run.id)
    patience = runtime.settings.heartbeat_timeout
    missing: list[str] = []
    with _hub(runtime).followed(keys.events, guard=keys.meta, gone=RunNotFoundError(run.id)) as follower:
        while True:
            record = await follower.next(patience)
            if record is not None:
                yield record
                if await _is_end(run, record):
                    return
                patience = runtime.settings.heartbeat_timeout
                continue
            patience = min(_RAREST_LOOK, 2 * patience)
            missing, before = await call(_missing_queues, runtime, run), missing
            if missing and missing != before:
                yield {"event": "workers_missing", "queues": missing, "at": time.time()}


async def submitted(submit: Callable[[], Submitted]) -> Submitted:
    """Submits a run in a thread. If the caller is cancelled meanwhile, the run is cancelled once it is there."""
    submitting = asyncio.ensure_future(call(submit))
    try:
        return await asyncio.shield(submitting)
    except asyncio.CancelledError:
        await asyncio.wait([submitting])
        if submitting.exception() is None:
            await call(submitting.result().cancel, _CANCELLED)
        raise


async def finish(
    runtime: Runtime, run: ClientRun, timeout: float | None = None, progress: Progress | None = None
) -> Any:
    """Waits for a run that the caller answers for and returns its last result; None if it waits for a person.

    On a timeout, and when the caller is cancelled, the run is cancelled.

    Args:
        progress: called in the event loop, with each event of the run.

    Raises:
        RunTimeoutError: it did not end within ``timeout`` seconds.
        Exception: what the run's ``result()`` raises.
    """
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            await _ended(runtime, run, progress)
    except asyncio.CancelledError:
        await call(run.cancel, _CANCELLED)
        raise
    except TimeoutError as error:
        if not limit.expired():
            raise
        await call(run.cancel, f"it did not end within {timeout:g} s")
        raise RunTimeoutError(run.id, timeout or 0.0, f"Look: graflow-celery show {run.id}") from error
    return None if await call(lambda: run.status) is RunStatus.WAITING else await call(run.result)


async def _ended(runtime: Runtime, run: ClientRun, progress: Progress | None = None) -> None:
    if progress is not None:
        async with contextlib.aclosing(aevents(runtime, run)) as events:
            async for record in events:
                progress(record)
        return
    keys = runtime.keys.run(run.id)
    with _hub(runtime).followed(keys.end, guard=keys.meta, gone=RunNotFoundError(run.id)) as follower:
        while not await _is_end(run, await follower.next()):
            pass


def _missing_queues(runtime: Runtime, run: ClientRun) -> list[str]:
    with reported(runtime.settings.redis_url):
        return list(runtime.liveness.unserved(run.plan.queues(runtime.settings.queue)))


def _hub(runtime: Runtime) -> EventHub:
    return hub_of(runtime.settings.redis_url, runtime.settings.key_prefix)


async def _is_end(run: ClientRun, record: EventRecord | None) -> bool:
    """Whether nothing more is to come: the run has ended, or it waits for a person, and not only did so once."""
    event = "" if record is None else str(record["event"])
    if record is not None and event in _ENDS:
        return await call(run.has_ended_with, record)
    return event == _WAITING and await call(lambda: run.status) is RunStatus.WAITING
