"""Follows the event streams of many runs at once from one event loop, on two connections however many they are.

One blocking read waits for news of every stream that is followed. To change what it waits for, the second connection
adds to a small stream of the hub's own, which is among those that are read. Nothing asks again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import redis
from redis.asyncio import Redis

from graflow_celery.errors import GraflowError
from graflow_celery.ports import EventRecord
from graflow_celery.redis_backend.client import Pauses, failure, opened_async, outages, passes
from graflow_celery.redis_backend.events import parse
from graflow_celery.redis_backend.keys import Keys

#: Seconds that a read blocks at most. In between it is looked whether what is followed still exists.
BLOCK = 5.0
#: Entries of all streams that one read brings at most, roughly, and of one stream.
READ_TOTAL, READ_EACH = 20_000, 1000
#: A stream of which so many records wait to be taken is left out until few are left.
HIGH_WATER, LOW_WATER = 2000, 500
#: Naming a stream in a read costs some microseconds here and on the server. A pause in proportion after each read that
#: brought news gathers what comes meanwhile, so that a thousand streams with news each do not cost a million namings.
PAUSE_PER_STREAM, LONGEST_PAUSE = 20e-6, 0.1
WAKE_TTL = 60
#: How CLIENT LIST names the connections.
CLIENT_NAME = "graflow-events"
SLICE = 500

_UNREACHABLE = (redis.ConnectionError, redis.TimeoutError, redis.ResponseError, OSError)
_hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], EventHub]] = WeakKeyDictionary()

Position = tuple[int, int]


class Follower:
    """One reader of one stream. ``async for`` gives its records from the first on, without an end."""

    def __init__(self, hub: EventHub, key: str, guard: str, gone: Exception | None) -> None:
        self.key = key
        self.guard = guard
        self.gone = gone
        self.position: Position = (0, 0)
        self.full = False
        self._hub = hub
        self._records: deque[EventRecord] = deque()
        self._news = asyncio.Event()
        self._error: BaseException | None = None

    def put(self, entry_id: str, record: EventRecord) -> None:
        """Takes an entry, unless it has it: others that follow the stream may stand elsewhere."""
        position = _position(entry_id)
        if position > self.position:
            self.position = position
            self._records.append(record)
            self.full = self.full or len(self._records) >= HIGH_WATER
            self._news.set()

    def tell(self, record: EventRecord) -> None:
        """Has it give a record that is not of the stream."""
        self._records.append(record)
        self._news.set()

    def fail(self, error: BaseException) -> None:
        """Has it raise ``error`` when the records that it has are taken."""
        self._error = error
        self._news.set()

    async def next(self, patience: float | None = None) -> EventRecord | None:
        """The next record; None if ``patience`` seconds went by without one.

        Raises:
            StoreUnavailableError, StoreRefusedError: the server has not served for long.
            Exception: ``gone``, if ``guard`` exists no more.
        """
        while not self._records:
            if self._error is not None:
                raise self._error.with_traceback(None)
            self._news.clear()
            try:
                async with asyncio.timeout(patience):
                    await self._news.wait()
            except TimeoutError:
                return None
        record = self._records.popleft()
        if self.full and len(self._records) <= LOW_WATER:
            self.full = False
            self._hub.changed()
        return record

    async def __aiter__(self) -> AsyncIterator[EventRecord]:
        while True:
            record = await self.next()
            if record is not None:
                yield record


class EventHub:
    """Reads for all followers of one event loop. It works, and is connected, only while it has some."""

    def __init__(self, url: str, keys: Keys, patience: float) -> None:
        self._url = url
        self._patience = patience
        self._wake_key = keys.wake(uuid.uuid4().hex)
        self._wake_position = "0-0"
        self._followers: set[Follower] = set()
        self._reading: asyncio.Task[None] | None = None
        self._waking: asyncio.Task[None] | None = None
        self._commands: Redis | None = None
        self._blocked = False
        self._stale = False

    def __len__(self) -> int:
        """How many followers there are."""
        return len(self._followers)

    @contextlib.contextmanager
    def followed(self, key: str, *, guard: str = "", gone: Exception | None = None) -> Iterator[Follower]:
        """Follows a stream for the time of the block.

        Args:
            guard: a key without which there is nothing to wait for any more; the follower raises ``gone`` then.
        """
        follower = Follower(self, key, guard, gone)
        self._followers.add(follower)
        if self._reading is None:
            self._start()
        self.changed()
        try:
            yield follower
        finally:
            self._followers.discard(follower)
            if not self._followers:
                self.changed()

    async def follow(
        self, key: str, *, guard: str = "", gone: Exception | None = None
    ) -> AsyncGenerator[EventRecord, None]:
        """The records of a stream, those that are there and those to come, without an end."""
        with self.followed(key, guard=guard, gone=gone) as follower:
            async for record in follower:
                yield record

    def changed(self) -> None:
        """Has the blocked read return, for it does not know of all that is to be read."""
        self._stale = True
        if self._blocked and self._waking is None and self._commands is not None:
            self._waking = asyncio.get_running_loop().create_task(self._wake(self._commands))

    def _start(self) -> None:
        self._reading = asyncio.get_running_loop().create_task(self._read_on(), name="graflow-events")
        self._reading.add_done_callback(self._ended)

    def _ended(self, reading: asyncio.Task[None]) -> None:
        self._reading = None
        error = GraflowError("Nothing is read any more: the event loop is ending.")
        failure = error if reading.cancelled() else reading.exception()
        if failure is not None:
            for follower in self._followers:
                follower.fail(failure)
        elif self._followers:  # one came while the connections were being closed
            self._start()

    async def _wake(self, commands: Redis) -> None:
        while self._blocked and self._stale:
            self._stale = False
            # Where that fails, the read finds out by itself that the server is gone, or returns when BLOCK has passed.
            with contextlib.suppress(redis.RedisError, OSError):
                pipe = commands.pipeline(transaction=False)
                pipe.xadd(self._wake_key, {"wake": ""}, maxlen=1, approximate=False)
                pipe.expire(self._wake_key, WAKE_TTL)
                await pipe.execute()
        self._waking = None

    async def _read_on(self) -> None:
        async with _connected(self._url) as reader, _connected(self._url) as self._commands:
            try:
                await self._read_again_and_again(reader)
            finally:
                if self._waking is not None:  # it may be connecting, and what it opens has to be closed too
                    await asyncio.wait([self._waking])

    async def _read_again_and_again(self, reader: Redis) -> None:
        backoff = Pauses()
        loop = asyncio.get_running_loop()
        failures = 0
        reached = looked = loop.time()
        while self._followers:
            try:
                brought = await self._read(reader)
                if loop.time() - looked >= BLOCK:
                    await self._look_after(reader)
                    looked = loop.time()
            except _UNREACHABLE as error:
                failures += 1
                if failures > 1:
                    outages.began(self._url, error)
                if not passes(error) or loop.time() - reached > self._patience:
                    raise failure(self._url, error) from None
                looked = -BLOCK  # a server that comes back may come back empty
                await asyncio.sleep(backoff.compute(failures))
            else:
                failures = 0
                outages.ended(self._url)
                reached = loop.time()
                if brought:
                    await asyncio.sleep(min(LONGEST_PAUSE, brought * PAUSE_PER_STREAM))

    async def _read(self, reader: Redis) -> int:
        """One read of everything that is followed. Returns how many streams that was, or 0 if there were no news."""
        wanted: defaultdict[str, list[Follower]] = defaultdict(list)
        for follower in self._followers:
            if not follower.full:
                wanted[follower.key].append(follower)
        streams: dict[Any, Any] = {key: _text(min(item.position for item in who)) for key, who in wanted.items()}
        streams[self._wake_key] = self._wake_position
        self._blocked, self._stale = True, False
        try:
            count = min(READ_EACH, max(10, READ_TOTAL // len(streams)))
            found = parse(await reader.xread(streams, count=count, block=int(BLOCK * 1000)))
        finally:
            self._blocked = False
        woken = found.pop(self._wake_key, [])
        if woken:
            self._wake_position = woken[-1][0]
        for key, entries in found.items():
            for follower in wanted[key]:
                for entry_id, record in entries:
                    follower.put(entry_id, record)
        return len(streams) if found else 0

    async def _look_after(self, reader: Redis) -> None:
        """Tells followers whose guard exists no more."""
        guarded = [follower for follower in self._followers if follower.guard]
        for start in range(0, len(guarded), SLICE):
            part = guarded[start : start + SLICE]
            pipe = reader.pipeline(transaction=False)
            for follower in part:
                pipe.exists(follower.guard)
            for follower, there in zip(part, await pipe.execute(), strict=True):
                if not there and follower.gone is not None:
                    follower.fail(follower.gone)


def hub_of(url: str, prefix: str, patience: float = 30.0) -> EventHub:
    """The running event loop's hub for a server; made when first asked for.

    Args:
        patience: seconds for which the server may be away or refuse before the followers are told.
    """
    hubs = _hubs.setdefault(asyncio.get_running_loop(), {})
    if (url, prefix) not in hubs:
        hubs[url, prefix] = EventHub(url, Keys(prefix), patience)
    return hubs[url, prefix]


@contextlib.asynccontextmanager
async def _connected(url: str) -> AsyncIterator[Redis]:
    """A client that is used by one task at a time, so that it has one connection. The hub does the retrying."""
    client = opened_async(url, BLOCK + 30.0, client_name=CLIENT_NAME)
    try:
        yield client
    finally:
        try:
            await client.aclose()
        except asyncio.CancelledError:  # the event loop ends, and cancels the tasks that aclose() makes for itself
            await client.aclose()
            raise


def _position(entry_id: str) -> Position:
    time, _, number = entry_id.partition("-")
    return int(time), int(number)


def _text(position: Position) -> str:
    return f"{position[0]}-{position[1]}"
