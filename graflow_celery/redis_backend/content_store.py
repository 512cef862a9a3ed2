"""Content by its hash: graphs, functions, large values. Uploaded if absent, cached where it is read."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping

from graflow_celery.errors import BlobMissingError
from graflow_celery.redis_backend.client import Client
from graflow_celery.redis_backend.keys import Keys


class ContentStore:
    """Blobs under ``P:blob:DIGEST``.

    ``uploads`` and ``uploaded_bytes`` count what this client sent; ``downloads`` what it fetched.
    """

    def __init__(self, client: Client, keys: Keys, ttl: int, cache_bytes: int) -> None:
        self.uploads = 0
        self.uploaded_bytes = 0
        self.downloads = 0
        self._client = client
        self._keys = keys
        self._ttl = ttl
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cached = 0
        self._cache_bytes = cache_bytes
        self._lock = threading.Lock()

    def put(self, blobs: Mapping[str, bytes]) -> int:
        """Stores what is absent and renews what is there; returns how many were uploaded. Two round trips at most."""
        names = list(blobs)
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.expire(self._keys.blob(name), self._ttl)
            present = pipe.execute()
        absent = [name for name, there in zip(names, present, strict=True) if not there]
        if absent:
            with self._client.pipeline(transaction=False) as pipe:
                for name in absent:
                    pipe.set(self._keys.blob(name), blobs[name], ex=self._ttl)
                pipe.execute()
        self.uploads += len(absent)
        self.uploaded_bytes += sum(len(blobs[name]) for name in absent)
        return len(absent)

    def absent(self, names: list[str]) -> list[str]:
        """Those of ``names`` that the store lacks; the others are renewed. One round trip."""
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.expire(self._keys.blob(name), self._ttl)
            return [name for name, there in zip(names, pipe.execute(), strict=True) if not there]

    def get(self, name: str, what: str) -> bytes:
        """Raises BlobMissingError, naming ``what``, if the blob is not there."""
        with self._lock:
            if name in self._cache:
                self._cache.move_to_end(name)
                return self._cache[name]
        data: bytes | None = self._client.get(self._keys.blob(name))
        if data is None:
            raise BlobMissingError(name, what)
        self.downloads += 1
        self._remember(name, data)
        return data

    def _remember(self, name: str, data: bytes) -> None:
        if len(data) > self._cache_bytes:
            return
        with self._lock:
            if name not in self._cache:
                self._cache[name] = data
                self._cached += len(data)
            while self._cached > self._cache_bytes:
                self._cached -= len(self._cache.popitem(last=False)[1])
