"""What was used last, up to a number."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """The ``most`` values that were asked for last, by key. Usable from many threads.

    Args:
        weigh: what a value counts for, besides being one.
        heaviest: what all of them may count for together; the newest stays, whatever it counts for.
    """

    def __init__(self, most: int, weigh: Callable[[Value], int] | None = None, heaviest: int = 0) -> None:
        self._most = most
        self._weigh = weigh
        self._heaviest = heaviest
        self._weight = 0
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Key, value: Value) -> None:
        with self._lock:
            if key in self._values:
                self._weight -= self._weight_of(self._values[key])
            self._values[key] = value
            self._values.move_to_end(key)
            self._weight += self._weight_of(value)
            while len(self._values) > self._most or (self._weight > self._heaviest and len(self._values) > 1):
                self._weight -= self._weight_of(self._values.popitem(last=False)[1])

    def _weight_of(self, value: Value) -> int:
        return 0 if self._weigh is None else self._weigh(value)
