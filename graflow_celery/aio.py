"""Runs on Celery workers, for programs with an event loop: ``await run``, ``async for event in run.aevents()``.

However many runs are awaited, a loop has two connections to the server, and the process a few threads, in which the
client's blocking calls are made.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

from graflow_celery.celery_backend.code_check import CODE_DIFFERS
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.celery_backend.waiting import OBSTACLES, Circumstances, abandoned, in_words
from graflow_celery.celery_backend.watching import standby_of
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import RunStatus
from graflow_celery.errors import GraflowError, RunLostError, RunTimeoutError, StoreUnavailableError
from graflow_celery.ports import EventRecord
from graflow_celery.redis_backend.async_events import EventHub, Follower, hub_of
from graflow_celery.threads import call

Progress = Callable[[EventRecord], None]

_CANCELLED = "the program that waited for it was cancelled"
_WAITING = f"run_{RunStatus.WAITING}"
_ENDS = frozenset(f"run_{status}" for status in RunStatus if status.is_terminal)
#: Seconds between two looks at server and workers, however many runs are awaited.
_LOOK_EVERY = 1.0
_lookouts: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, Lookout]] = WeakKeyDictionary()
logger = logging.getLogger(__name__)


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

    It also tells what keeps the run from moving, each time that changes: ``{"event": "workers_missing", "queues":
    [...]}``, ``{"event": "store_refuses", "reason": ...}``.

    Raises:
        RunLostError: the store has the run no more.
        StoreUnavailableError, StoreRefusedError: the server has not served for ``reconnect_timeout``.
    """
    async with contextlib.aclosing(_records(runtime, run, runtime.keys.run(run.id).events)) as records:
        async for record in records:
            yield record


async def _records(runtime: Runtime, run: ClientRun, key: str) -> AsyncGenerator[EventRecord, None]:
    gone = RunLostError(run.id)
    with (
        _hub(runtime).followed(key, guard=runtime.keys.run(run.id).meta, gone=gone) as follower,
        _lookout(runtime).watched(follower, run),
    ):
        try:
            async for record in follower:
                yield record
                if await _is_end(run, record):
                    return
        except StoreUnavailableError as error:
            raise abandoned(error, run.id, runtime.settings.reconnect_timeout) from None


class Lookout:
    """Looks for what keeps runs from moving, once a second for all runs that are awaited in an event loop."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._watched: dict[Follower, ClientRun] = {}
        self._told: dict[Follower, dict[str, Any]] = {}
        self._looking: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def watched(self, follower: Follower, run: ClientRun) -> Iterator[None]:
        """Tells ``follower`` of what keeps ``run`` from moving, for the time of the block."""
        self._watched[follower] = run
        if self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look_on(), name="graflow-lookout")
        try:
            yield
        finally:
            del self._watched[follower]
            self._told.pop(follower, None)
            if not self._watched and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _look_on(self) -> None:
        await asyncio.sleep(self._runtime.settings.heartbeat_timeout)
        standing = contextlib.ExitStack()
        standing.enter_context(standby_of(self._runtime).standing())
        try:
            await self._look_again_and_again()
        finally:
            await call(standing.close)

    async def _look_again_and_again(self) -> None:
        while True:
            # Where the server is away, or has lost a run, its followers find that out by themselves.
            with contextlib.suppress(GraflowError):
                for follower, obstacle in (await call(self._look, list(self._watched.items()))).items():
                    if follower in self._watched and obstacle != self._told.get(follower):
                        follower.tell({**obstacle, "at": time.time()})
                        self._told[follower] = obstacle
            await asyncio.sleep(_LOOK_EVERY)

    def _look(self, watched: list[tuple[Follower, ClientRun]]) -> dict[Follower, dict[str, Any]]:
        """One look, in a thread: what keeps which run from moving."""
        found = Circumstances.of(self._runtime)
        queue = self._runtime.settings.queue
        obstacles = {follower: found.obstacle(run.plan.queues(queue)) for follower, run in watched}
        for follower in [follower for follower, obstacle in obstacles.items() if obstacle is None]:
            self._told.pop(follower, None)
        return {follower: obstacle for follower, obstacle in obstacles.items() if obstacle is not None}


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
    keys = runtime.keys.run(run.id)
    async with contextlib.aclosing(_records(runtime, run, keys.end if progress is None else keys.events)) as records:
        async for record in records:
            if progress is not None:
                progress(record)
            elif record["event"] in OBSTACLES:
                logger.warning("run %s waits: %s", run.id, in_words(record))
            elif record["event"] == CODE_DIFFERS:
                logger.warning("run %s: %s", run.id, record["reason"])


def _lookout(runtime: Runtime) -> Lookout:
    lookouts = _lookouts.setdefault(asyncio.get_running_loop(), {})
    return lookouts.setdefault(id(runtime), Lookout(runtime))


def _hub(runtime: Runtime) -> EventHub:
    settings = runtime.settings
    return hub_of(settings.redis_url, settings.key_prefix, settings.reconnect_timeout)


async def _is_end(run: ClientRun, record: EventRecord | None) -> bool:
    """Whether nothing more is to come: the run has ended, or it waits for a person, and not only did so once."""
    event = "" if record is None else str(record["event"])
    if record is not None and event in _ENDS:
        return await call(run.has_ended_with, record)
    return event == _WAITING and await call(lambda: run.status) is RunStatus.WAITING
