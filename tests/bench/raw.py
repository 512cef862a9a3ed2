"""The raw Celery app that the benchmarks compare with: no-op tasks, settings as Celery has them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from celery import Celery, chain, chord

URL = os.environ.get("RAW_CELERY_URL", "memory://")

app = Celery("raw", broker=URL, backend=URL.replace("memory://", "cache+memory://"), set_as_current=False)
app.conf.task_default_queue = "raw"
app.conf.broker_connection_retry_on_startup = True


@app.task(name="raw.noop", shared=False)
def noop(*_: object) -> int:
    return 1


@app.task(name="raw.collect", shared=False)
def collect(results: Sequence[int]) -> int:
    return len(results)


def chord_of(members: int) -> Any:
    return chord([noop.si() for _ in range(members)], collect.s()).apply_async()


def chords_in_turn() -> None:
    """50 chords of 10, each waited for: what a driver does that wants barriers in a row."""
    for _ in range(50):
        chord_of(10).get(timeout=300)


def canvas_of_chords() -> None:
    """50 chords of 10 as one canvas: each body starts the next chord."""
    steps = [chord([noop.si() for _ in range(10)], noop.si()) for _ in range(50)]
    chain(*steps).apply_async().get(timeout=300)


def chain_of_100() -> None:
    chain(*(noop.si() for _ in range(100))).apply_async().get(timeout=300)
