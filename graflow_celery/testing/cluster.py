"""A cluster for a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graflow_celery.embedded import EmbeddedCluster

STOP_GRACE = 5.0


@contextmanager
def embedded_cluster(workers: int = 1, concurrency: int = 2, **settings: Any) -> Iterator[EmbeddedCluster]:
    """A server and workers for the time of the block; nothing of them is left behind.

    Args:
        workers: how many worker nodes.
        concurrency: how many tasks each runs at a time.
        settings: fields of :class:`Settings`, and what else :class:`EmbeddedCluster` takes.

    Raises:
        ServerMissingError: no server program was found.
        UnavailableError: something did not start; the message has the end of its log.
    """
    cluster = EmbeddedCluster(workers, concurrency, **settings)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop(STOP_GRACE)
