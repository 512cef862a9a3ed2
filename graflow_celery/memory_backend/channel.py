"""The channel of a run in this process: a dict behind a lock."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from graflow_celery.core.channel_rules import is_number, no_list, no_number, require_amount, require_ttl, too_large
from graflow_celery.errors import ChannelLockTimeoutError
from graflow_celery.ports import Clock


class MemoryChannel:
    """See :class:`graflow_celery.ports.Channel`. Values are kept as they are, not copied.

    Args:
        initial: what it starts with.
        clock: by which keys expire; seconds from any start.
    """

    def __init__(self, initial: Mapping[str, Any] | None = None, clock: Clock = time.monotonic) -> None:
        self._values: dict[str, Any] = dict(initial or {})
        self._deadlines: dict[str, float] = {}
        self._clock = clock
        self._mutex = threading.RLock()
        self._locked: set[str] = set()
        self._unlocked = threading.Condition()

    def set(self, key: str, value: Any, ttl: float | None = None) -> None:
        require_ttl(key, ttl)
        with self._mutex:
            self._values[key] = value
            self._deadlines.pop(key, None)
            self._expire(key, ttl)

    def get(self, key: str, default: Any = None) -> Any:
        with self._live() as values:
            return values.get(key, default)

    def delete(self, key: str) -> bool:
        with self._live() as values:
            self._deadlines.pop(key, None)
            return values.pop(key, _ABSENT) is not _ABSENT

    def exists(self, key: str) -> bool:
        with self._live() as values:
            return key in values

    def keys(self) -> list[str]:
        with self._live() as values:
            return list(values)

    def values(self) -> tuple[dict[str, Any], dict[str, float]]:
        """Everything that is there at this moment, and the seconds that keys have left which were given a ttl."""
        with self._live() as values:
            now = self._clock()
            return dict(values), {key: deadline - now for key, deadline in self._deadlines.items()}

    def clear(self) -> None:
        with self._live() as values:
            values.clear()
            self._deadlines.clear()

    def append(self, key: str, value: Any, ttl: float | None = None) -> int:
        return self._extend(key, [], [value], ttl)

    def prepend(self, key: str, value: Any, ttl: float | None = None) -> int:
        return self._extend(key, [value], [], ttl)

    def atomic_add(self, key: str, amount: int | float = 1) -> int | float:
        require_amount(key, amount)
        with self._live() as values:
            present = values.get(key, 0)
            if not is_number(present):
                raise no_number(key)
            total: int | float = present + amount
            if not is_number(total):
                raise too_large(key)
            values[key] = total
            return total

    @contextmanager
    def lock(self, key: str, timeout: float = 10.0) -> Iterator[None]:
        with self._unlocked:
            if not self._unlocked.wait_for(lambda: key not in self._locked, min(timeout, threading.TIMEOUT_MAX)):
                raise ChannelLockTimeoutError(key, timeout)
            self._locked.add(key)
        try:
            yield
        finally:
            with self._unlocked:
                self._locked.remove(key)
                self._unlocked.notify_all()

    def _extend(self, key: str, front: list[Any], back: list[Any], ttl: float | None) -> int:
        require_ttl(key, ttl)
        with self._live() as values:
            present = values.get(key, [])
            if type(present) is not list:
                raise no_list(key)
            values[key] = [*front, *present, *back]
            self._expire(key, ttl)
            return len(values[key])

    def _expire(self, key: str, ttl: float | None) -> None:
        if ttl is not None:
            self._deadlines[key] = self._clock() + ttl

    @contextmanager
    def _live(self) -> Iterator[dict[str, Any]]:
        """The values for one step, without those whose time is up."""
        with self._mutex:
            if self._deadlines:
                now = self._clock()
                for key in [key for key, deadline in self._deadlines.items() if deadline <= now]:
                    del self._deadlines[key], self._values[key]
            yield self._values


_ABSENT = object()
