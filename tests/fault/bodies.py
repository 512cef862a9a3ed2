"""Tasks for the fault suite, importable on the workers: each notes that it runs, then waits for leave to end."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

from graflow_celery import TaskExecutionContext, task
from graflow_celery.testing import wait_until

LONGEST = 60.0


def held_up(context: TaskExecutionContext, gate: str) -> str:
    """What tells this attempt from every other one of its node."""
    place = Path(gate)
    note = place / f".{context.task_id}-{context.attempt}-{os.getpid()}"
    note.write_text(f"{time.monotonic()}")
    note.rename(place / f"ran-{context.task_id}-{context.attempt}-{os.getpid()}")
    leave = (place / "open", place / f"open-{context.task_id}")
    wait_until(lambda: any(path.exists() for path in leave), timeout=LONGEST, description="the gate to open")
    return f"{context.task_id}-{context.attempt}"


@task
def tally(members: dict[str, str]) -> dict[str, int]:
    """How many results each member of the group ``members`` has."""
    return dict(Counter(text.partition("-")[0] for text in members.values()))
