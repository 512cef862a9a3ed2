"""Policies: they judge a group at its barrier. This one goes on if at least two members succeeded.
Run it: graflow-celery run examples/07_policies.py --backend embedded"""

import sysconfig
from pathlib import Path

from graflow_celery import AtLeastNGroupPolicy, ParallelGroup, task, workflow

ENCODINGS = ("ascii", "utf-8", "cp1252", "cp932", "big5")


@task
def read(file: str = "heapq.py") -> bytes:
    return Path(sysconfig.get_path("stdlib"), file).read_bytes()


@task
def decode(read: bytes, encoding: str) -> int:
    """How many characters the bytes are. A wrong encoding raises UnicodeError."""
    return len(read.decode(encoding))


@task
def fitting(decoded: dict[str, int]) -> dict[str, int]:
    """Only the members that succeeded are in the group's result."""
    return decoded


with workflow("policies") as wf:
    tries = [decode(task_id=name, encoding=name) for name in ENCODINGS]
    read >> ParallelGroup(tries, name="decoded", policy=AtLeastNGroupPolicy(2)) >> fitting
