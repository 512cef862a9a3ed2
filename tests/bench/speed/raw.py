"""The raw Celery app that the benchmarks compare with: the same work, settings as Celery has them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from celery import Celery, chain, chord

from tests.bench.speed import work

URL = os.environ.get("RAW_CELERY_URL", "memory://")
TIMEOUT = 300

app = Celery("raw", broker=URL, backend=URL.replace("memory://", "cache+memory://"), set_as_current=False)
app.conf.task_default_queue = "raw"
app.conf.broker_connection_retry_on_startup = True


@app.task(name="raw.noop", shared=False)
def noop(*_: object) -> int:
    return 1


@app.task(name="raw.collect", shared=False)
def collect(results: Sequence[int]) -> int:
    return len(results)


@app.task(name="raw.nap", shared=False)
def nap(seconds: float) -> int:
    work.nap(seconds)
    return 1


@app.task(name="raw.burn", shared=False)
def burn(seconds: float) -> int:
    work.burn(seconds)
    return 1


@app.task(name="raw.clock", shared=False)
def clock() -> float:
    return time.monotonic()


@app.task(name="raw.since_last", shared=False)
def since_last(ends: Sequence[float]) -> float:
    return work.since(ends)


def chord_of(members: int) -> None:
    """One chord of no-op tasks and its body."""
    chord([noop.si() for _ in range(members)], collect.s()).apply_async().get(timeout=TIMEOUT)


def chords_in_turn(count: int, members: int) -> None:
    """Chords, each waited for: what a driver does that wants barriers in a row."""
    for _ in range(count):
        chord_of(members)


def canvas_of_chords(count: int, members: int) -> None:
    """Chords as one canvas: each body starts the next chord."""
    steps = [chord([noop.si() for _ in range(members)], noop.si()) for _ in range(count)]
    chain(*steps).apply_async().get(timeout=TIMEOUT)


def line(length: int) -> None:
    """A chain of no-op tasks."""
    chain(*(noop.si() for _ in range(length))).apply_async().get(timeout=TIMEOUT)


def working(kind: str, pieces: Sequence[float]) -> None:
    """A chord whose members work for so many seconds each. ``kind``: how, as in `flows.WORKING`."""
    member: Any = burn if kind == "burn" else nap
    chord([member.si(seconds) for seconds in pieces], collect.s()).apply_async().get(timeout=TIMEOUT)


def first() -> float:
    """When a task began that is sent now."""
    return float(clock.apply_async().get(timeout=TIMEOUT))


def after_barrier(members: int) -> float:
    """Seconds from the end of a chord's last member to the begin of its body."""
    ends = chord([clock.si() for _ in range(members)], since_last.s())
    return float(ends.apply_async().get(timeout=TIMEOUT))
