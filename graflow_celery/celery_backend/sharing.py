"""Gives the processes of a worker's pool places that they share: for large content, for counts, for what they do."""

from __future__ import annotations

import os
import shutil
from typing import Any

from billiard.process import current_process
from celery import Celery, signals
from celery.concurrency import get_implementation

from graflow_celery.celery_backend.board import Board
from graflow_celery.redis_backend.blob_counts import BlobCounts, SharedCounts
from graflow_celery.redis_backend.shared_content import SharedContent, make_directory

#: What a worker's processes share, by the app; children have it from the main process that forked them.
_SHARED: dict[int, tuple[SharedContent, int]] = {}
_COUNTS: dict[int, SharedCounts] = {}
_BOARDS: dict[int, Board] = {}


def shared_content(app: Celery) -> SharedContent | None:
    """What this process shares with others of its worker, if it is in one that has several."""
    found = _SHARED.get(id(app))
    return None if found is None else found[0]


def shared_counts(app: Celery) -> SharedCounts | None:
    """What the processes of this one's worker count together; None outside of a worker."""
    return _COUNTS.get(id(app))


def board_of(app: Celery) -> Board | None:
    """Where the processes of this one's worker say what they do; None outside of a worker."""
    return _BOARDS.get(id(app))


def blob_counts(app: Celery) -> BlobCounts | None:
    """This process's share of :func:`shared_counts`."""
    shared = shared_counts(app)
    return None if shared is None else shared.of(getattr(current_process(), "index", None))


def install(app: Celery, most: int) -> None:
    """Lets every worker of ``app`` that has a pool of processes make its directory, and remove it at its end.

    ``most``: bytes of shared content; 0 for none.
    """

    def prepare(sender: Any = None, **_: Any) -> None:
        if sender is None or sender.app is not app:
            return
        _COUNTS[id(app)] = SharedCounts()
        _BOARDS[id(app)] = Board()
        if not most or not _has_processes(sender):
            return
        made = make_directory(most)
        if made is not None:
            _SHARED[id(app)] = made, os.getpid()

    def clear(**_: Any) -> None:
        shared, pid = _SHARED.pop(id(app), (None, 0))
        if shared is not None and pid == os.getpid():
            shutil.rmtree(shared.directory, ignore_errors=True)

    signals.worker_init.connect(prepare, weak=False)
    signals.worker_shutdown.connect(clear, weak=False)


def _has_processes(worker: Any) -> bool:
    """Whether a worker that is being made will have more than one process that runs tasks."""
    kind: Any = get_implementation(worker.pool_cls)
    return str(kind.__module__) == "celery.concurrency.prefork" and worker.concurrency != 1
