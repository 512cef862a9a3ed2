"""Tasks for the fault suite, importable on the workers: each notes that it runs, then waits for leave to end."""

from __future__ import annotations

import os
import time
import timeit
from collections import Counter
from pathlib import Path

from graflow_celery import TaskExecutionContext, task
from graflow_celery.testing import wait_until

LONGEST = 60.0
SAMPLE = 1_000_000


def note(context: TaskExecutionContext, gate: str) -> None:
    """Notes that the attempt began: node, attempt and process in the name of a file, the time in it."""
    name = f"{context.task_id}-{context.attempt}-{os.getpid()}"
    unfinished = Path(gate, f".{name}")
    unfinished.write_text(f"{time.monotonic()}")
    unfinished.rename(Path(gate, f"ran-{name}"))


def held_up(context: TaskExecutionContext, gate: str) -> str:
    """What tells this attempt from every other one of its node."""
    note(context, gate)
    leave = (Path(gate, "open"), Path(gate, f"open-{context.task_id}"))
    wait_until(lambda: any(path.exists() for path in leave), timeout=LONGEST, description="the gate to open")
    return f"{context.task_id}-{context.attempt}"


@task
def tally(members: dict[str, str]) -> dict[str, int]:
    """How many results each member of the group ``members`` has."""
    return dict(Counter(text.partition("-")[0] for text in members.values()))


def grinding(context: TaskExecutionContext, gate: str, seconds: float) -> str:
    """The first attempt holds the GIL for so many seconds, or longer on a busy machine, in one call of a C function."""
    note(context, gate)
    if context.attempt == 1:
        pace = min(timeit.repeat(lambda: sum(range(SAMPLE)), number=1, repeat=10)) / SAMPLE
        sum(range(int(seconds / pace)))
    return f"{context.task_id}-{context.attempt}"
