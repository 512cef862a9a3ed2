"""Calls that are due later, all in one thread of the process, which sleeps until the next of them is due."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
from collections.abc import Callable


class Timers:
    """Calls functions at their time. They must be quick: they share one thread.

    Args:
        clock: seconds, from anywhere, that never go back.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """In a forked child the thread is gone, and what it was to call is the parent's."""
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        with self._changed:
            heapq.heappush(self._due, (self._clock() + seconds, next(self._numbers), call))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="graflow-timers", daemon=True)
                self._thread.start()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._due or self._due[0][0] > self._clock():
                    self._changed.wait(self._due[0][0] - self._clock() if self._due else None)
                _, _, call = heapq.heappop(self._due)
            call()
