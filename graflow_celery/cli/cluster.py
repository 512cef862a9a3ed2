"""The server and workers that a command starts for itself, and that are gone when it ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any

from graflow_celery import compat
from graflow_celery.cli import render
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.settings import Settings
from graflow_celery.terminal.wording import counted


@contextmanager
def own_cluster(workers: int, queues: Sequence[str] = (), *, quiet: bool = False) -> Iterator[Settings]:
    """Starts a server and workers, says so, and yields the settings to reach them with. Stops them at the end.

    Its workers know graflow's name if this process does.

    Raises:
        UnavailableError: there is no server program, or one of them did not start.
    """
    known: dict[str, Any] = {"compat": True} if compat.installed() else {}
    cluster = EmbeddedCluster(workers, queues=queues, **known)
    with ExitStack() as stack:
        stack.push(cluster)
        with nullcontext() if quiet else render.busy(f"Starting a server and {counted(workers, 'worker')} ..."):
            cluster.start()
        yield cluster.settings
