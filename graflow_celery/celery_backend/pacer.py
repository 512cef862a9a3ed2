"""Looks after the shifts of this process: one whose attempt takes long has its neighbours relieved of waiting."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from graflow_celery.engine.shift import TURN, Shift
from graflow_celery.errors import GraflowError

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

    @contextmanager
    def looking_after(self, shift: Shift) -> Iterator[None]:
        """For as long as the block lasts."""
        with self._changed:
            self._shifts.add(shift)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._look, name="graflow-pacer", daemon=True)
                self._thread.start()
            elif len(self._shifts) == 1:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                self._shifts.discard(shift)

    def _look(self) -> None:
        while True:
            with self._changed:
                # An idle process is not woken.
                self._changed.wait(TURN / 2 if self._shifts else None)
                late = [shift for shift in self._shifts if shift.busy > TURN]
            for shift in late:
                try:
                    shift.relieve()
                except (redis.RedisError, GraflowError) as error:
                    logger.warning("what was done could not be committed yet: %s", error)


PACER = Pacer()
