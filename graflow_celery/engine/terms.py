"""What a shift may do, and what it tells of."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from graflow_celery.core.plan import Plan
from graflow_celery.core.state import Applied
from graflow_celery.engine.node import Host
from graflow_celery.ports import Attempt, Members


class Terms(Protocol):
    """What a shift may do besides the attempts that it was given, and what it tells of."""

    def host(self, plan: Plan, node: str) -> Host:
        """What is lent to an attempt of a node."""

    def kind(self, plan: Plan, node: str) -> str:
        """What nodes have in common that take about as long."""

    def expected(self, kind: str) -> float | None:
        """Seconds that code of a kind takes, as far as is known."""

    def took(self, kind: str, seconds: float) -> None: ...

    def goes_on(self, plan: Plan, node: str) -> bool:
        """Whether a node that follows may run in this process, at once."""

    def opens(self, plan: Plan, group: str) -> bool:
        """Whether all that a group starts with may run in this process, at once, because it takes so little time."""

    def closes(self, plan: Plan, group: str) -> bool:
        """Whether a group's barrier may be closed in this process, at once."""

    def judge(self, plan: Plan, group: str) -> Applied:
        """Closes it, and leaves what follows to the caller."""

    def commits_late(self) -> bool:
        """Whether attempts may run before what leads to them was committed."""

    def share(self, plan: Plan, members: Members) -> None:
        """Sends members that nobody has begun."""

    def holds(self, attempts: Sequence[Attempt], rest: Members | None) -> None:
        """The shift has leave for these now, and the rest to do."""

    def begins(self, attempt: Attempt) -> AbstractContextManager[None]:
        """Around the run of an attempt."""


@dataclass(slots=True)
class Entry:
    """What an attempt came to, for whoever lists the worker's tasks. ``traceback``: of what was raised, if it was."""

    node: str
    attempt: int
    state: str
    reason: str
    seconds: float
    traceback: str = ""
