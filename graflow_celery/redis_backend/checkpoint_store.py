"""Checkpoints in Redis: one key each, which lives as long as a run without events does."""

from __future__ import annotations

from graflow_celery.errors import CheckpointError
from graflow_celery.redis_backend.client import Client, reported
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.settings import mask_url


class RedisCheckpointStore:
    """See :class:`graflow_celery.ports.CheckpointStore`. A path is ``redis:NAME``, or with ``at`` ``at/NAME``.

    Args:
        url: of the server, for its errors.
        ttl: seconds that a checkpoint lives.
        at: what stands ahead of the name in a path where the server is another one than the settings'.
    """

    def __init__(self, client: Client, keys: Keys, url: str, ttl: int, at: str = "") -> None:
        self._client = client
        self._keys = keys
        self._url = url
        self._ttl = ttl
        self._at = at

    def save(self, name: str, data: bytes) -> str:
        """Raises StoreUnavailableError."""
        with reported(self._url):
            self._client.set(self._keys.checkpoint(name), data, ex=self._ttl)
        return self.path(name)

    def load(self, name: str) -> bytes:
        """Raises CheckpointError; StoreUnavailableError if no server answers."""
        with reported(self._url):
            data: bytes | None = self._client.get(self._keys.checkpoint(name))
        if data is None:
            raise CheckpointError(
                self.path(name),
                f"there is none of this name at {mask_url(self._url)}: it was taken elsewhere, or its run_ttl has "
                f"passed. See Run.checkpoints().",
            )
        return data

    def names(self) -> list[str]:
        start = self._keys.checkpoint("")
        with reported(self._url):
            found = self._client.scan_iter(match=f"{start}*", count=1000)
            return sorted({key.decode().removeprefix(start) for key in found})

    def path(self, name: str) -> str:
        return f"{self._at}/{name}" if self._at else f"redis:{name}"
