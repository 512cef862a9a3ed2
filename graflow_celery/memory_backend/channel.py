"""The channel of a run in this process: a dict behind a lock."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any


class MemoryChannel:
    """See :class:`graflow_celery.ports.Channel`. Values are kept as they are, not copied."""

    def __init__(self, initial: Mapping[str, Any] | None = None) -> None:
        self._values: dict[str, Any] = dict(initial or {})
        self._lock = threading.RLock()

    def set(self, key: str, value: Any) -> None:
        with self._lock:
            self._values[key] = value

    def get(self, key: str, default: Any = None) -> Any:
        with self._lock:
            return self._values.get(key, default)

    def delete(self, key: str) -> bool:
        with self._lock:
            return self._values.pop(key, _ABSENT) is not _ABSENT

    def exists(self, key: str) -> bool:
        with self._lock:
            return key in self._values

    def keys(self) -> list[str]:
        with self._lock:
            return list(self._values)

    def clear(self) -> None:
        with self._lock:
            self._values.clear()

    def append(self, key: str, value: Any) -> int:
        with self._lock:
            self._values[key] = [*self._list(key), value]
            return len(self._values[key])

    def prepend(self, key: str, value: Any) -> int:
        with self._lock:
            self._values[key] = [value, *self._list(key)]
            return len(self._values[key])

    def atomic_add(self, key: str, amount: int | float = 1) -> int | float:
        with self._lock:
            present = self._values.get(key, 0)
            if isinstance(present, bool) or not isinstance(present, int | float):
                raise TypeError(f"Channel key '{key}' holds {type(present).__name__}, not a number: nothing was added.")
            total: int | float = present + amount
            self._values[key] = total
            return total

    def _list(self, key: str) -> list[Any]:
        present = self._values.get(key, [])
        if not isinstance(present, list):
            raise TypeError(f"Channel key '{key}' holds {type(present).__name__}, not a list: nothing was added.")
        return present


_ABSENT = object()
