"""Takes fences out of a worker, to show what they are for. For ``celery worker --include tests.fault.unfenced``.

A fence is out while a file of its name lies in the directory that the environment names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Any

from celery.worker.request import Request

from graflow_celery.celery_backend import compiler
from graflow_celery.celery_backend.requests import NodeRequest
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.engine.lost import Losses
from graflow_celery.engine.monitor import Monitor
from graflow_celery.redis_backend.client import Scripts

VARIABLE = "GRAFLOW_TEST_FENCES"


class Fence(StrEnum):
    """What stands between Celery and us."""

    REQUEST = "request"  # a task that the main process ends goes through the store
    MONITOR = "monitor"  # what was left undone is done
    NEW_ID = "new_id"  # each attempt's message has an id of its own
    WANTED = "wanted"  # the control command ends what is stale alone
    COMMIT = "commit"  # an outcome counts once, and for the current attempt
    GIVE_UP = "give_up"  # a group that cannot be met any more is closed


@contextmanager
def taken_out(directory: Path, *fences: Fence) -> Iterator[None]:
    """Takes fences out for the time of a block."""
    for fence in fences:
        (directory / fence).touch()
    try:
        yield
    finally:
        for fence in fences:
            (directory / fence).unlink()


def _is_out(fence: Fence) -> bool:
    return Path(os.environ[VARIABLE], fence).exists()


def _replace(owner: Any, name: str, fence: Fence, instead: Any) -> None:
    """Has ``owner.name`` be ``instead`` while the fence is out."""
    original = getattr(owner, name)

    @wraps(original)
    def chosen(*args: Any, **kwargs: Any) -> Any:
        return (instead if _is_out(fence) else original)(*args, **kwargs)

    setattr(owner, name, chosen)


def _take_out() -> None:
    _replace(Monitor, "tick", Fence.MONITOR, lambda self: 0)
    _replace(Runtime, "is_wanted", Fence.WANTED, lambda self, held, holder: False)
    _replace(Losses, "_give_up", Fence.GIVE_UP, lambda self, run, place: False)

    node_message = compiler.node_message

    def same_id(run: Any, plan: Any, node: str, attempt: int) -> compiler.Message:
        message = node_message(run, plan, node, attempt)
        first = node_message(run, plan, node, 1)
        return compiler.Message(message.task, message.args, {**message.options, "task_id": first.options["task_id"]})

    _replace(compiler, "node_message", Fence.NEW_ID, same_id)

    def lost_as_celery_does(self: Any, *args: Any, **kwargs: Any) -> None:
        self.task.reject_on_worker_lost = False
        try:
            Request.on_failure(self, *args, **kwargs)
        finally:
            self.task.reject_on_worker_lost = True

    _replace(NodeRequest, "on_failure", Fence.REQUEST, lost_as_celery_does)
    _replace(NodeRequest, "on_timeout", Fence.REQUEST, Request.on_timeout)
    _replace(NodeRequest, "_announce_revoked", Fence.REQUEST, Request._announce_revoked)
    _open_commit()


def _open_commit() -> None:
    script = Scripts.__getitem__

    def chosen(self: Scripts, name: str) -> Any:
        found = script(self, name)
        if name != "advance" or not _is_out(Fence.COMMIT):
            return found
        text = str(found.script)
        fence = "if FINAL[state] or present[ATTEMPT] ~= t.attempt then"
        assert fence in text
        return found.registered_client.register_script(text.replace(fence, "if false then"))

    Scripts.__getitem__ = chosen  # type: ignore[method-assign]


if VARIABLE in os.environ:
    _take_out()
