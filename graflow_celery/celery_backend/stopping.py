"""The control command with which workers are told to end what is not wanted any more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery.worker.control import Panel

from graflow_celery.celery_backend.requests import stop_stale, told
from graflow_celery.celery_backend.runtime import STOP_STALE


def install() -> None:
    """Has every worker of this process obey the command. See https://docs.celeryq.dev/en/stable/userguide/workers.html"""
    Panel.register(
        name=STOP_STALE,
        type="control",
        args=[("runs", str)],
        signature="[run1 [run2 ... [runN]]]",
        variadic="runs",
    )(graflow_stop_stale)


def graflow_stop_stale(state: Any, runs: Sequence[str], **_: Any) -> dict[str, Any]:
    """Ends the attempts of some runs that go on here although another attempt took over, or nothing waits for them."""
    ended: list[str] = []
    with told():
        ended = stop_stale(set(runs), state.consumer.pool)
    return {"ok": f"{len(ended)} ended", "ended": ended}
