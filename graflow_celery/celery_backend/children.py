"""Has a worker see within a moment that a process of its pool died.

Celery looks when a process closes the pipe that tells of its end. The kernel closes it a moment before the process can
be waited for, so that look often finds the process alive, and the next one comes five seconds later.
"""

from __future__ import annotations

from typing import Any

from celery import Celery, bootsteps

#: Seconds between two looks; one costs a system call for each process of the pool.
LOOK = 0.25


class LookAfterChildren(bootsteps.StartStopStep):  # type: ignore[misc, unused-ignore]
    """Looks often whether the processes of the pool live; in pools that have some and an event loop: prefork."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        look = getattr(parent.pool, "maintain_pool", None)
        if parent.hub is not None and look is not None:
            parent.hub.call_repeatedly(LOOK, look)


def install(app: Celery) -> None:
    app.steps["worker"].add(LookAfterChildren)
