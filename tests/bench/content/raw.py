"""The raw Celery app that the counts are compared with. It pickles, which suits large values better than JSON."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from typing import Any

import redis
from celery import Celery, chain, chord, group

from tests.bench.content.flows import value

URL = os.environ.get("RAW_CELERY_URL", "memory://")
STORE = os.environ.get("RAW_STORE_URL", "")

app = Celery("raw", broker=URL, backend=URL.replace("memory://", "cache+memory://"), set_as_current=False)
app.conf.task_default_queue = "raw"
app.conf.broker_connection_retry_on_startup = True
app.conf.task_serializer = app.conf.result_serializer = "pickle"
app.conf.accept_content = ["pickle", "json"]


@app.task(name="raw.noop", shared=False)
def noop(*_: object) -> int:
    return 1


@app.task(name="raw.count_down", shared=False)
def count_down(left: int) -> None:
    """Sends the next one while some are left."""
    if left:
        count_down.delay(left - 1)
    else:
        redis.Redis.from_url(STORE).lpush("raw:done", "")


@app.task(name="raw.produce", shared=False)
def produce(kind: str, seed: int) -> Any:
    return value(kind, seed)


@app.task(name="raw.read", shared=False)
def read(data: Any, number: int) -> int:
    return len(data) + 0 * number


@app.task(name="raw.store", shared=False)
def store(kind: str, seed: int) -> str:
    redis.Redis.from_url(STORE).set("raw:value", pickle.dumps(value(kind, seed), protocol=5))
    return "raw:value"


@app.task(name="raw.fetch", shared=False)
def fetch(key: str, number: int) -> int:
    return len(pickle.loads(redis.Redis.from_url(STORE).get(key))) + 0 * number  # type: ignore[arg-type]


@app.task(name="raw.collect", shared=False)
def collect(results: Sequence[int]) -> list[int]:
    return list(results)


def chords(count: int, members: int) -> None:
    """Chords in a row, as one canvas: each body starts the next chord."""
    steps = [chord([noop.si() for _ in range(members)], noop.si()) for _ in range(count)]
    chain(*steps).apply_async().get(timeout=300)


def sent_chord(members: int) -> Any:
    """Sends it, and does not wait."""
    return chord([noop.si() for _ in range(members)], noop.si()).apply_async()


def adding(count: int) -> None:
    """Each task sends the next."""
    client = redis.Redis.from_url(STORE, socket_timeout=330)
    count_down.delay(count)
    if client.blpop(["raw:done"], timeout=300) is None:
        raise TimeoutError("raw Celery did not end within 300 s")


def as_argument(kind: str, seed: int, members: int) -> list[int]:
    """The value is the result of the one and an argument of the others."""
    canvas = chain(produce.s(kind, seed), chord(group(read.s(index) for index in range(members)), collect.s()))
    return list(canvas.apply_async().get(timeout=300))


def by_reference(kind: str, seed: int, members: int) -> list[int]:
    """The user's own way around: the one stores it in Redis under a key, which the others are given."""
    canvas = chain(store.s(kind, seed), chord(group(fetch.s(index) for index in range(members)), collect.s()))
    return list(canvas.apply_async().get(timeout=300))
