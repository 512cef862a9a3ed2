"""Threads for calls that may take as long as a person does."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Callers:
    """Calls functions one after the other, in a few threads that keep no process from ending.

    A pool of `concurrent.futures` would: the end of the process waits for its threads, and a thread that reads what a
    person types cannot be stopped.
    """

    def __init__(self, threads: int = 8) -> None:
        self._threads = threads
        self._waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._working = 0

    def call(self, function: Callable[[], None]) -> None:
        """Has ``function`` called, when a thread is free. Returns at once."""
        self._waiting.put(function)
        with self._lock:
            if self._working == self._threads:
                return
            self._working += 1
        threading.Thread(target=self._work, name="graflow-feedback", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:  # a function that is put meanwhile finds this thread gone, and starts another
                if self._waiting.empty():
                    self._working -= 1
                    return
                function = self._waiting.get_nowait()
            function()
