"""Content by its hash: graphs, functions, large values. Uploaded if absent, cached where it is read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from graflow_celery.codec.envelope import Content
from graflow_celery.codec.values import ValueCodec
from graflow_celery.errors import BlobMissingError
from graflow_celery.redis_backend.client import Client
from graflow_celery.redis_backend.keys import Keys


class ContentStore:
    """Blobs under ``P:blob:NAME``. What is read is checked once, then kept decompressed, the least used dropped first.

    ``uploads`` and ``uploaded_bytes`` count what this client sent; ``downloads`` what it fetched.
    """

    def __init__(self, client: Client, keys: Keys, codec: ValueCodec, ttl: int, cache_bytes: int) -> None:
        self.uploads = 0
        self.uploaded_bytes = 0
        self.downloads = 0
        self._client = client
        self._keys = keys
        self._codec = codec
        self._ttl = ttl
        self._cache = _Cache(cache_bytes)
        self._fetching = _Flights()

    def put(self, blobs: Mapping[str, bytes]) -> int:
        """Stores what is absent and renews what is there; returns how many were uploaded. Two round trips at most."""
        absent = self.absent(list(blobs))
        if absent:
            with self._client.pipeline(transaction=False) as pipe:
                for name in absent:
                    pipe.set(self._keys.blob(name), blobs[name], ex=self._ttl)
                pipe.execute()
        self.uploads += len(absent)
        self.uploaded_bytes += sum(len(blobs[name]) for name in absent)
        return len(absent)

    def put_value(self, name: str, content: Content) -> None:
        """Stores a value as the blob ``name``, and keeps it at hand: who made it often reads it."""
        for absent in self.absent([name]):
            self.put({absent: self._codec.seal(content.payload, content.serializer, name)})
        self._cache.keep(name, content)

    def absent(self, names: Sequence[str]) -> list[str]:
        """Those of ``names`` that the store lacks; the others are renewed. One round trip."""
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.expire(self._keys.blob(name), self._ttl)
            return [name for name, there in zip(names, pipe.execute(), strict=True) if not there]

    def get(self, name: str, what: str) -> Content:
        """What is in a blob. Threads that ask for one that is not at hand wait for the first, which fetches it.

        Raises:
            BlobMissingError, BlobRejectedError: it is not there, or fails a check. Both name it, and ``what`` it is.
        """
        found = self._cache.find(name)
        if found is not None:
            return found
        with self._fetching.alone(name):
            found = self._cache.find(name)
            if found is None:
                found = self._codec.open(self.sealed(name, what), what=what, name=name)
                self._cache.keep(name, found)
            return found

    def get_all(self, names: Sequence[str], what: str) -> list[Content]:
        """What is in several blobs. One round trip for all that are not at hand. Raises what :meth:`get` does."""
        found = {name: content for name in names if (content := self._cache.find(name)) is not None}
        lacking = [name for name in names if name not in found]
        with self._client.pipeline(transaction=False) as pipe:
            for name in lacking:
                pipe.get(self._keys.blob(name))
            blobs = pipe.execute()
        for name, data in zip(lacking, blobs, strict=True):
            if data is None:
                raise BlobMissingError(name, what)
            self.downloads += 1
            found[name] = self._codec.open(data, what=what, name=name)
            self._cache.keep(name, found[name])
        return [found[name] for name in names]

    def sealed(self, name: str, what: str) -> bytes:
        """A blob as it lies in the store, for who takes it elsewhere. Raises BlobMissingError."""
        data: bytes | None = self._client.get(self._keys.blob(name))
        if data is None:
            raise BlobMissingError(name, what)
        self.downloads += 1
        return data


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
