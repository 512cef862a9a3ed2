"""The monitor: carries out what nobody carried out in time. Safe to run anywhere, and in many places at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Protocol

from graflow_celery.core.commands import Command
from graflow_celery.core.events import RunAborted
from graflow_celery.core.plan import Plan
from graflow_celery.engine.runner import Engine
from graflow_celery.errors import BlobMissingError, BlobRejectedError
from graflow_celery.ports import RunRef

BATCH = 500
#: Seconds between two ticks at the least.
SHORTEST = 0.02

logger = logging.getLogger(__name__)


class DueCommands(Protocol):
    """A run store that can hand out commands whose time has come, and says in how many seconds the next one is due."""

    next_due: float | None

    def due(self, limit: int) -> Iterable[tuple[RunRef, list[Command]]]: ...


class Leadership(Protocol):
    """A lease that one monitor at a time holds."""

    def lead(self, name: str, seconds: float) -> bool: ...


class Monitor:
    """Carries out what is due in the outboxes of runs: timers whose time has come, and what is still there after its
    grace, because a process died between commit and dispatch, or a chord did not fire. The fence makes a second sending
    harmless.

    Args:
        engine: carries the commands out.
        due: where they come from.
        plan: finds a run's plan. Raises BlobMissingError or BlobRejectedError.
        leadership, name, lease: ticks do nothing while another monitor holds the lease of ``lease`` seconds.
    """

    def __init__(
        self,
        engine: Engine,
        due: DueCommands,
        plan: Callable[[RunRef], Plan],
        leadership: Leadership,
        name: str,
        lease: float,
    ) -> None:
        self._engine = engine
        self._due = due
        self._plan = plan
        self._leadership = leadership
        self._name = name
        self._lease = lease
        self._leads = False

    def tick(self) -> int:
        """One look at everything that is due; returns how many commands were carried out."""
        self._leads = self._leadership.lead(self._name, self._lease)
        if not self._leads:
            return 0
        done = 0
        for run, commands in self._due.due(BATCH):
            logger.info("run %s: carrying out %d commands whose time has come", run.id, len(commands))
            try:
                self._engine.carry_out(run, self._plan(run), commands)
            except (BlobMissingError, BlobRejectedError) as error:
                self._engine.end(run, RunAborted(str(error)))
                continue
            done += len(commands)
        return done

    def patience(self, most: float) -> float:
        """Seconds until another tick is worth while, ``most`` at the most."""
        after = self._due.next_due if self._leads else None
        return most if after is None else min(most, max(SHORTEST, after))
