"""What a client knows to be stored, so that it need not ask again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable

#: Names that are remembered at most.
MOST = 65_536


class SeenNames:
    """Names of blobs that were stored when this process asked last. Usable from many threads.

    Args:
        seconds: for how long that is relied on. ``clock`` tells the time, in seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float], most: int = MOST) -> None:
        self._seconds = seconds
        self._clock = clock
        self._most = most
        self._seen: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()

    def note(self, names: Iterable[str]) -> None:
        """Notes what is stored now."""
        now = self._clock()
        with self._lock:
            for name in names:
                self._seen[name] = now
                self._seen.move_to_end(name)
            while len(self._seen) > self._most:
                self._seen.popitem(last=False)

    def forget(self) -> None:
        """Relies on nothing any more: the store turned out to lack something."""
        with self._lock:
            self._seen.clear()

    def unseen(self, names: Iterable[str]) -> list[str]:
        """Those of ``names`` that have to be asked for."""
        since = self._clock() - self._seconds
        with self._lock:
            return [name for name in names if self._seen.get(name, since) <= since]
