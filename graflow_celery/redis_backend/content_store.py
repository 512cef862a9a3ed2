"""Content by its hash: graphs, functions, large values. Uploaded if absent, cached where it is read."""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from graflow_celery.codec.envelope import BLOB_HEAD, Content
from graflow_celery.codec.manifest import PackedGraph, blob_names
from graflow_celery.codec.values import ValueCodec
from graflow_celery.ports import RunRef
from graflow_celery.redis_backend.blob_counts import BlobCounts, Kind
from graflow_celery.redis_backend.client import Client
from graflow_celery.redis_backend.holdings import queue_hold
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.plea import Plea
from graflow_celery.redis_backend.seen import SeenNames
from graflow_celery.redis_backend.shared_content import SharedContent

#: A blob that was seen stored is relied on for so much of its time to live, and for so many seconds at most.
TRUSTED, LONGEST_TRUST = 0.25, 600.0

#: What one sending uploads: neither side has to hold all of a large graph twice.
PARCEL, PARCEL_BYTES = 1_000, 8_000_000

#: Takes the replies to what was asked out of those of a pipeline, and uploads what the store lacks: how many blobs, and
#: how many bytes.
Upload = Callable[[Iterator[Any]], tuple[int, int]]


class ContentStore:
    """Blobs under ``P:blob:NAME``. What is read is checked once, then kept decompressed, the least used dropped first.

    ``uploads`` and ``uploaded_bytes`` count what this client sent; ``downloads`` what it fetched.
    """

    def __init__(
        self,
        client: Client,
        keys: Keys,
        codec: ValueCodec,
        ttl: int,
        cache_bytes: int,
        shared: SharedContent | None = None,
        counts: BlobCounts | None = None,
    ) -> None:
        """
        Args:
            ttl: seconds for which a blob lives at least after it was stored, renewed, or relied on.
            cache_bytes: what this process keeps. ``shared``: what it shares with other processes of its worker.
            counts: where it is counted for the metrics, if this is a worker's process.
        """
        self.uploads = 0
        self.uploaded_bytes = 0
        self.downloads = 0
        self._client = client
        self._keys = keys
        self._codec = codec
        trust = min(TRUSTED * ttl, LONGEST_TRUST)
        self._ttl = ttl + math.ceil(trust)
        self._cache = _Cache(cache_bytes)
        self._fetching = _Flights()
        self._shared = shared
        self._counts = counts
        #: By which what is missing is asked for.
        self.plea = Plea(client, keys, ttl)
        #: What need not be asked for. A graph's name stands for all that belongs to it.
        self.seen = SeenNames(trust, time.monotonic)

    @property
    def ttl(self) -> int:
        """Seconds that a blob has left that was just stored or renewed."""
        return self._ttl

    def ensure(self, packed: PackedGraph) -> tuple[int, int]:
        """Uploads what the store lacks of a graph: how many blobs, and how many bytes.

        One round trip, and another one to upload; none if all of it was seen stored lately.

        Raises:
            SerializationError: a function or a bound value cannot be sent; the message names the task.
        """
        with self._client.pipeline(transaction=False) as pipe:
            upload = self.ask(pipe, packed)
            return upload(iter(pipe.execute()))

    def ask(self, pipe: Any, packed: PackedGraph, *, anew: bool = False) -> Upload:
        """Has a pipeline ask what the store lacks of a graph, as far as it was not seen lately; renews the rest.

        The manifest is read with it: it tells which pages lie in it. ``anew``: what was seen is asked for, too.
        """
        names = packed.names if anew else self.seen.unseen(packed.names) if self.seen.unseen([packed.hash]) else []
        for name in names:
            self._look(pipe, name)
        if names and packed.has_pages:
            pipe.get(self._keys.blob(packed.hash))

        def upload(replies: Iterator[Any]) -> tuple[int, int]:
            absent = {name for name in names if not self._is_there(name, replies)}
            manifest = next(replies) if names and packed.has_pages else None
            blobs = {name: blob() for name, blob in packed.missing(absent, manifest).items()}
            self._upload(blobs)
            self.seen.note([name for name in names if name not in absent or name in blobs])
            return len(blobs), sum(map(len, blobs.values()))

        return upload

    def _upload(self, blobs: Mapping[str, bytes]) -> None:
        for part in _parcels(blobs):
            with self._client.pipeline(transaction=False) as pipe:
                for name in part:
                    pipe.set(self._keys.blob(name), blobs[name], ex=self._ttl)
                pipe.execute()
        size = sum(map(len, blobs.values()))
        self.uploads += len(blobs)
        self.uploaded_bytes += size
        self.count("bytes_out", size)

    def count(self, kind: Kind, count: int = 1) -> None:
        """For the metrics, in a worker: content was found, or bytes went to or from the store."""
        if self._counts is not None and count:
            self._counts.add(kind, count)

    def put(self, blobs: Mapping[str, bytes]) -> int:
        """Stores what is absent and renews what is there; returns how many were uploaded. Two round trips at most."""
        absent = self.absent(list(blobs))
        self._upload({name: blobs[name] for name in absent})
        return len(absent)

    def put_value(self, name: str, content: Content, run: RunRef | None = None) -> None:
        """Stores a value as the blob ``name``, and keeps it at hand: who made it often reads it. ``run`` holds it."""
        with self._client.pipeline(transaction=False) as pipe:
            if run is not None:
                queue_hold(pipe, self._keys, run, [name], self._ttl)
            before = len(pipe)
            self._look(pipe, name)
            if not self._is_there(name, iter(pipe.execute()[before:])):
                self._upload({name: self._codec.seal(content.payload, content.serializer, name)})
        self._cache.keep(name, content)
        if self._shared is not None:
            self._shared.keep(name, content)

    def absent(self, names: Sequence[str]) -> list[str]:
        """Those of ``names`` that the store lacks; the others are renewed. One round trip."""
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                self._look(pipe, name)
            replies = iter(pipe.execute())
        return [name for name in names if not self._is_there(name, replies)]

    def _look(self, pipe: Any, name: str) -> None:
        pipe.expire(self._keys.blob(name), self._ttl)
        if self._codec.keys:
            pipe.getrange(self._keys.blob(name), 0, BLOB_HEAD - 1)

    def _is_there(self, name: str, replies: Iterator[Any]) -> bool:
        """Whether a blob need not be uploaded.

        Where there is a secret, one that was not signed with it is uploaded again: it was stored before the secret was
        set or replaced, and workers that know the new one alone refuse it.
        """
        there = bool(next(replies))
        if self._codec.keys:
            there = not self._codec.needs_signing(next(replies), name) and there
        return there

    def get(self, name: str, what: str) -> Content:
        """What is in a blob. Threads that ask for one that is not at hand wait for the first, which fetches it.

        Raises:
            BlobMissingError, BlobRejectedError: it is not there, or fails a check. Both name it, and ``what`` it is.
        """
        return self._once(name, lambda: self._fetched(name, what))

    def value(self, name: str, what: str) -> Content:
        """As :meth:`get`, of a large value, which the processes of one worker share."""
        return self._once(name, lambda: self._shared_or_fetched(name, what))

    def _once(self, name: str, bring: Callable[[], Content]) -> Content:
        found = self._cache.find(name)
        if found is not None:
            self.count("memory")
            return found
        with self._fetching.alone(name):
            found = self._cache.find(name)
            if found is None:
                found = bring()
                self._cache.keep(name, found)
            else:
                self.count("memory")
            return found

    def _fetched(self, name: str, what: str) -> Content:
        return self._codec.open(self.sealed([name], what)[0], what=what, name=name)

    def _shared_or_fetched(self, name: str, what: str) -> Content:
        shared = self._shared
        if shared is None:
            return self._fetched(name, what)
        found = shared.find(name)
        if found is not None:
            self.count("shared")
            return found
        with shared.alone(name):
            found = shared.find(name)
            if found is None:
                found = self._fetched(name, what)
                shared.keep(name, found)
            else:
                self.count("shared")
            return found

    def get_all(self, names: Sequence[str], what: str) -> list[Content]:
        """What is in several blobs. One round trip for all that are not at hand. Raises what :meth:`get` does."""
        found = {name: content for name in names if (content := self._cache.find(name)) is not None}
        lacking = [name for name in names if name not in found]
        self.count("memory", len(found))
        for name, data in zip(lacking, self.sealed(lacking, what), strict=True):
            found[name] = self._codec.open(data, what=what, name=name)
            self._cache.keep(name, found[name])
        return [found[name] for name in names]

    def names_of(self, graph: str) -> list[str]:
        """Every blob that a graph consists of. Raises what :meth:`get` does."""
        return blob_names(graph, self.get, self.get_all)

    def sealed(self, names: Sequence[str], what: str) -> list[bytes]:
        """Blobs as they lie in the store, for who takes them elsewhere. One round trip. Raises BlobMissingError."""
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.get(self._keys.blob(name))
            blobs = dict(zip(names, pipe.execute(), strict=True))
        lacking = [name for name, data in blobs.items() if data is None]
        if lacking:
            blobs |= self.plea.answered(lacking, what)
        found: list[bytes] = [blobs[name] for name in names]
        self.downloads += len(found)
        self.count("store", len(found))
        self.count("bytes_in", sum(map(len, found)))
        return found


def _parcels(blobs: Mapping[str, bytes]) -> Iterator[list[str]]:
    """The names of what goes into one sending each: so many blobs, or so many bytes and what exceeds them by one."""
    part: list[str] = []
    held = 0
    for name, data in blobs.items():
        part.append(name)
        held += len(data)
        if len(part) == PARCEL or held >= PARCEL_BYTES:
            yield part
            part, held = [], 0
    if part:
        yield part


class _Cache:
    """Content by name, up to so many bytes."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._items: OrderedDict[str, Content] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, name: str) -> Content | None:
        with self._lock:
            if name in self._items:
                self._items.move_to_end(name)
            return self._items.get(name)

    def keep(self, name: str, content: Content) -> None:
        size = len(content.payload)
        if size > self._most:
            return
        with self._lock:
            if name not in self._items:
                self._items[name] = content
                self._held += size
            while self._held > self._most:
                self._held -= len(self._items.popitem(last=False)[1].payload)


class _Flights:
    """One at a time for each name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        with self._lock:
            lock, waiting = self._under_way.get(name, (threading.Lock(), 0))
            self._under_way[name] = lock, waiting + 1
        try:
            with lock:
                yield
        finally:
            with self._lock:
                _, waiting = self._under_way.pop(name)
                if waiting > 1:
                    self._under_way[name] = lock, waiting - 1
