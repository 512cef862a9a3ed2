"""What the monitor needs to see: the runs' ledger, and the workforce."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from graflow_celery.engine.turnover import Receivers
from graflow_celery.errors import BlobMissingError
from graflow_celery.ports import Death, Held, Late, NodeReport, RunRef


class Lease(Protocol):
    """A live worker's last beat."""

    @property
    def name(self) -> str: ...

    @property
    def held(self) -> tuple[Held, ...]: ...

    @property
    def queues(self) -> tuple[str, ...]: ...

    @property
    def age(self) -> float:
        """Seconds since that beat."""


class Ledger(Protocol):
    """A run store that says what is late."""

    next_look: float | None

    def late(self, *, sweep: bool = False) -> Iterable[Late]:
        """What is late, claimed for the caller. With ``sweep`` everything that has not ended."""

    def reports(self, run: RunRef, nodes: Sequence[str]) -> list[NodeReport | None]: ...

    def input(self, run: RunRef, node: str) -> Any: ...

    def ease(self, run: RunRef, nodes: Sequence[str], seconds: float) -> None:
        """Lets nodes that are well be looked at in so many seconds."""

    def hurry(self, run: RunRef, seconds: float = 0.0) -> None:
        """Has the run looked at in so many seconds, unless that is to happen earlier."""

    def forget(self, run: RunRef, nodes: Sequence[str]) -> None:
        """Lets nodes be looked at no more."""

    def note(self, run: RunRef, event: str, **fields: str | int) -> None:
        """Writes down in the run's events what no transition of it tells."""

    def begged(self, run: RunRef, error: BlobMissingError) -> bool:
        """Whether those who wait for the run are being asked for what is missing, and have time left to put it back."""


class Workforce(Receivers, Protocol):
    """Who is alive."""

    next_expiry: float | None

    def lead(self, name: str, seconds: float) -> bool:
        """Takes or keeps the lease that one monitor at a time holds."""

    def deaths(self) -> list[Death]:
        """The workers that are dead and not buried."""

    def bury(self, death: Death) -> bool:
        """Forgets a worker that was declared dead. False if it has beaten since."""

    def living(self, workers: Iterable[str] | None = None) -> Mapping[str, Lease]:
        """Those of ``workers``, or all, that are not known to be dead.

        That a lease has run out proves nothing by itself, since the store may have been away: see :meth:`deaths`.
        """
