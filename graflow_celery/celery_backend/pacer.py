"""Looks after the shifts of this process: one whose attempt takes long has its neighbours relieved of waiting."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from graflow_celery.engine.shift import LONG, Shift
from graflow_celery.errors import GraflowError

#: Looks without a shift after which the thread sleeps until there is one.
PATIENCE = 8

logger = logging.getLogger(__name__)


class Pacer:
    """One thread of a process, there as long as shifts are. A forked child begins without it."""

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self._changed = threading.Condition()
        self._shifts: set[Shift] = set()
        self._thread: threading.Thread | None = None
        self._sleeps = False

    @contextmanager
    def looking_after(self, shift: Shift) -> Iterator[None]:
        """For as long as the block lasts."""
        with self._changed:
            self._shifts.add(shift)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._look, name="graflow-pacer", daemon=True)
                self._thread.start()
            elif self._sleeps:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._shifts.discard(shift)

    def _look(self) -> None:
        idle = 0
        while True:
            with self._changed:
                # A process that has had nothing to do for a while is not woken; one that has, not for each message.
                self._sleeps = idle >= PATIENCE and not self._shifts
                self._changed.wait(None if self._sleeps else LONG / 2)
                self._sleeps = False
                idle = 0 if self._shifts else idle + 1
                late = [shift for shift in self._shifts if shift.busy > LONG]
            for shift in late:
                try:
                    shift.relieve()
                except (redis.RedisError, GraflowError) as error:
                    logger.warning("what was done could not be committed yet: %s", error)


PACER = Pacer()
