"""Why a run that somebody waits for does not move: no worker, a server that refuses, a state that is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.state import RunStatus
from graflow_celery.errors import (
    NoWorkerError,
    RunLostError,
    RunNotFoundError,
    StoreRefusedError,
    StoreUnavailableError,
)
from graflow_celery.ports import EventRecord
from graflow_celery.redis_backend.client import patience, reported, takes_writes

#: The events by which those who wait are told. No run's log has them.
OBSTACLES = frozenset({"store_refuses", "workers_missing"})
_ENDS = frozenset(f"run_{status}" for status in RunStatus if status.is_terminal)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """How server and workers stand: why the server refuses to be written to, if it does, and the queues served."""

    refusal: str = ""
    served: frozenset[str] = frozenset()

    @classmethod
    def of(cls, runtime: Runtime) -> Circumstances:
        """One look: three round trips, whatever is waited for."""
        with reported(runtime.settings.redis_url):
            try:
                takes_writes(runtime.client, runtime.keys.probe)
            except StoreRefusedError as error:
                return cls(str(error))
            return cls("", frozenset(queue for worker in runtime.liveness.workers() for queue in worker.queues))

    def obstacle(self, queues: Sequence[str]) -> dict[str, Any] | None:
        """What keeps a run on these queues from moving, as an event, or None."""
        if self.refusal:
            return {"event": "store_refuses", "reason": self.refusal}
        missing = [queue for queue in queues if queue not in self.served]
        return {"event": "workers_missing", "queues": missing} if missing else None


def is_end(record: EventRecord | None) -> bool:
    """Whether an event tells of a run's end; the run may have been retried since."""
    return record is not None and str(record["event"]) in _ENDS


def is_pause(record: EventRecord | None) -> bool:
    """Whether it tells that the run waits for a person who is late."""
    return record is not None and record["event"] == "run_waiting"


def check_there(runtime: Runtime, run_id: str) -> None:
    """Raises RunLostError if the store does not have a run that was there."""
    try:
        runtime.store.details(run_id)
    except RunNotFoundError:
        raise RunLostError(run_id) from None


def abandoned(error: StoreUnavailableError, run_id: str, seconds: float) -> StoreUnavailableError:
    """What somebody is told who waited for a run until the server had been away for too long."""
    hint = (
        f"Nothing of run {run_id} is lost if it comes back with its data. Go on then: graflow-celery watch {run_id}, "
        f"or Run.get({run_id!r}).wait(). GRAFLOW_CELERY_RECONNECT_TIMEOUT says how long to wait for it."
    )
    return StoreUnavailableError(error.url, f"{error.reason}; waited {seconds:.3g} s", hint)


def in_words(obstacle: EventRecord) -> str:
    """An obstacle for a log line."""
    return str(obstacle["reason"]) if "reason" in obstacle else str(NoWorkerError(obstacle["queues"]))


@contextmanager
def persistent(runtime: Runtime, run_id: str, deadline: float | None) -> Iterator[None]:
    """Waits in the block for a server that is away: for ``reconnect_timeout``, but not beyond the deadline.

    ``deadline``: by the monotonic clock, in seconds.
    """
    most = runtime.settings.reconnect_timeout
    left = most if deadline is None else min(most, max(1.0, deadline - time.monotonic()))
    try:
        with patience(left):
            yield
    except StoreUnavailableError as error:
        raise abandoned(error, run_id, left) from None
