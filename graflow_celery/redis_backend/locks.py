"""Locks between all threads and processes of a run: one key in Redis with its holder's token, on a lease."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from graflow_celery.errors import ChannelLockLostError, ChannelLockTimeoutError, UnavailableError
from graflow_celery.redis_backend.client import Client, Scripts

#: Seconds after which the lock of a holder that died is free. One that lives renews it in time.
LEASE = 5.0
#: The shortest wait that every server takes for one, and not for a wait without end.
SHORTEST_WAIT = 0.01

logger = logging.getLogger(__name__)


class RedisLock:
    """Held by one at a time; not reentrant. Whoever waits for it is woken by the server when it is freed."""

    def __init__(self, client: Client, scripts: Scripts, keys: tuple[str, str], name: str, lease: float) -> None:
        self._client = client
        self._script = scripts["lock"]
        self._keys = keys
        self._name = name
        self._lease = lease

    @contextmanager
    def held(self, timeout: float) -> Iterator[None]:
        """Holds the lock for the time of the block.

        Raises:
            ChannelLockTimeoutError: it was not free within ``timeout`` seconds; the block did not run.
            ChannelLockLostError: the block ran, and the lease ended before it did.
        """
        token = secrets.token_hex(16)
        self._take(token, timeout)
        done = threading.Event()
        threading.Thread(target=self._keep, args=(token, done), name=f"lock {self._name}", daemon=True).start()
        try:
            yield
        finally:
            done.set()
            kept = self._step("free", token)
        if not kept:
            raise ChannelLockLostError(self._name)

    def _take(self, token: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while lease_left := self._step("take", token) / 1000:
            left = deadline - time.monotonic()
            if left <= 0:
                raise ChannelLockTimeoutError(self._name, timeout)
            self._client.blpop([self._keys[1]], timeout=max(SHORTEST_WAIT, min(left, lease_left)))

    def _keep(self, token: str, done: threading.Event) -> None:
        """Renews the lease until the holder is done, or does not have it any more."""
        while not done.wait(self._lease / 3):
            try:
                if not self._step("keep", token):
                    return
            except (redis.RedisError, UnavailableError) as error:
                logger.warning(
                    "the lock of channel key '%s' could not be renewed, and is tried again: %s", self._name, error
                )

    def _step(self, what: str, token: str) -> int:
        return int(self._script(keys=self._keys, args=[what, token, int(self._lease * 1000)], client=self._client))
