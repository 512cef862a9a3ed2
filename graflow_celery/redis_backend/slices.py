"""Large hashes in many small commands: the server serves nobody else while it carries one out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeVar

from graflow_celery.redis_backend.client import Client

T = TypeVar("T")

#: Fields that one command reads or writes, which takes the server less than a millisecond.
SLICE = 500


def sliced(items: Iterable[T], size: int = SLICE) -> Iterator[list[T]]:
    """The items in lists of ``size``; the last one may be shorter."""
    rest = iter(items)
    while part := list(islice(rest, size)):
        yield part


def scanned(client: Client, key: str) -> dict[bytes, bytes]:
    """A hash that nobody changes meanwhile. What is changed meanwhile may be there as it was or as it is."""
    return dict(client.hscan_iter(key, count=SLICE))


def scores(client: Client, key: str) -> list[tuple[bytes, float]]:
    """The members of a sorted set and their scores, the lowest first; what is changed meanwhile as :func:`scanned`."""
    found = dict(client.zscan_iter(key, count=SLICE))
    return sorted(found.items(), key=lambda item: (item[1], item[0]))


def put_fields(pipe: Any, key: str, fields: Mapping[str, Any]) -> None:
    """Has a pipeline write fields of a hash."""
    for part in sliced(fields.items()):
        pipe.hset(key, mapping=dict(part))


def put_scores(pipe: Any, key: str, scores: Mapping[str, float]) -> None:
    """Has a pipeline write members of a sorted set."""
    for part in sliced(scores.items()):
        pipe.zadd(key, dict(part))
