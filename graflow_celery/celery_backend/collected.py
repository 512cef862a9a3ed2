"""What the code of a run's nodes logged, as workers collected it. See `collecting`."""

from __future__ import annotations

from collections.abc import Iterator

from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.state import RunStatus
from graflow_celery.ports import RunRef
from graflow_celery.redis_backend.client import connect
from graflow_celery.redis_backend.log_stream import Line, LogReader

#: Seconds that a look waits for news.
SLICE = 1.0


def lines(runtime: Runtime, run: RunRef, *, follow: bool) -> Iterator[Line]:
    """The lines that are there, by their times; or all as they come, until the run has ended. Raises RunNotFoundError.

    Processes send their lines a few times a second, each by itself, so that they come in no order.
    """
    runtime.store.details(run.id)
    reader = LogReader(connect(runtime.settings.redis_url, block=SLICE), runtime.keys.run(run.id).logs)
    if follow:
        return _followed(runtime, run, reader)
    found: list[Line] = []
    while batch := reader.read():
        found += batch
    return iter(sorted(found, key=lambda line: float(line.get("at", 0.0))))


def _followed(runtime: Runtime, run: RunRef, reader: LogReader) -> Iterator[Line]:
    over = False
    while True:
        batch = reader.read(SLICE)
        yield from batch
        if over and not batch:
            return
        # Lines come a little later than the end: one more look after it.
        over = over or RunStatus(runtime.store.details(run.id)["status"]).is_terminal
