"""Tasks that note when and where they began and then wait for a gate, which lies on a server of the bench's own.

Times are those of the machine's monotonic clock, which all of its processes share.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import redis

from graflow_celery.testing import wait_until

LAB = "FAULTS_LAB"
NODE = "FAULTS_NODE"


@dataclass(frozen=True)
class Mark:
    """One task's process came by: which task, when, in which process of which node."""

    label: str
    node: str
    pid: int
    at: float


@cache
def _lab(_: int) -> redis.Redis:
    return redis.Redis.from_url(os.environ[LAB], socket_timeout=None, decode_responses=True)


def pass_gate(work: str, label: str) -> str:
    """Runs in a worker: notes the begin, waits for the gate, notes the end; returns the name of its node."""
    lab = _lab(os.getpid())
    mark = Mark(label, os.environ[NODE], os.getpid(), time.monotonic())
    lab.rpush(f"begun:{work}", json.dumps(asdict(mark)))
    lab.blmove(f"gate:{work}", f"gate:{work}", 0)
    lab.rpush(f"ended:{work}", json.dumps(asdict(mark)))
    return mark.node


def pass_time(seconds: float) -> None:
    """For what is measured over a time, and is no wait for anything."""
    threading.Event().wait(seconds)


class Gate:
    """The bench's side of one piece of work."""

    def __init__(self, lab: Any, work: str) -> None:
        self._lab = lab
        self.work = work

    def open(self) -> None:
        """For all who wait and who will come; whoever passes leaves it open."""
        self._lab.rpush(f"gate:{self.work}", "open")

    def begun(self) -> list[Mark]:
        return self._marks("begun")

    def ended(self) -> list[Mark]:
        return self._marks("ended")

    def wait_begun(self, count: int, timeout: float = 30.0) -> list[Mark]:
        """The first ``count`` begins. Raises TimeoutError."""
        wait_until(lambda: len(self.begun()) >= count, timeout=timeout, description=f"{count} tasks to begin")
        return self.begun()[:count]

    def first_after(self, at: float, labels: Iterable[str], timeout: float) -> dict[str, Mark]:
        """Of each of ``labels`` the first begin after ``at``; those that do not come within ``timeout`` are missing."""
        wanted = set(labels)

        def found() -> dict[str, Mark]:
            later = [mark for mark in self.begun() if mark.at > at and mark.label in wanted]
            return {mark.label: mark for mark in reversed(later)}

        with suppress(TimeoutError):
            wait_until(lambda: len(found()) == len(wanted), timeout=timeout, description="the tasks to begin again")
        return found()

    def _marks(self, kind: str) -> list[Mark]:
        return [Mark(**json.loads(text)) for text in self._lab.lrange(f"{kind}:{self.work}", 0, -1)]
