"""The beginning and the end of the processes that run tasks, as far as tracing is concerned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import signals

from graflow_celery.tracing.following import REPORTS


def install(prepare: Callable[[], None]) -> None:
    """Has what traces made in each process of a pool, never before it is forked; and flushed before it ends.

    Args:
        prepare: makes it, if the settings want runs to be traced.
    """

    def begin(**_: Any) -> None:
        prepare()

    def end(**_: Any) -> None:
        REPORTS.farewell()

    signals.worker_process_init.connect(begin, weak=False)
    signals.worker_process_shutdown.connect(end, weak=False)
