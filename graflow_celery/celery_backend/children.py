"""Has a worker see within a moment that a process of its pool died.

Celery looks when a process closes the pipe that tells of its end. The kernel closes it a moment before the process can
be waited for, so that look often finds the process alive, and the next one comes five seconds later.
"""

from __future__ import annotations

from typing import Any

from celery import Celery, bootsteps

#: Seconds between two looks: a system call for each process of the pool.
INTERVAL = 0.25


class LookAfterChildren(bootsteps.StartStopStep):  # type: ignore[misc, unused-ignore]  # no types
    """See https://docs.celeryq.dev/en/stable/userguide/extending.html"""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self._timer: Any = None

    def register_with_event_loop(self, parent: Any, hub: Any) -> None:
        """Called by workers that have an event loop, those with a pool of processes; again when they reconnected."""
        maintain = getattr(parent.pool, "maintain_pool", None)
        if self._timer is not None:
            self._timer.cancel()
        if maintain is not None:
            self._timer = hub.call_repeatedly(INTERVAL, maintain)


def install(app: Celery) -> None:
    app.steps["worker"].add(LookAfterChildren)
