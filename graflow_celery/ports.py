"""What the engine needs from outside, as small protocols. Each has an adapter in memory and one on Redis or Celery."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from graflow_celery.core.commands import Command
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import Applied, NodeState, Transition

#: One line of a run's event log: ``event``, ``at`` (seconds since the epoch, by the store's clock) and what belongs to
#: the event: ``node``, ``attempt``, ``worker``, ``duration`` (seconds), ``reason``, ``count``.
EventRecord = Mapping[str, Any]

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class RunRef:
    """Which run, of which graph. All that travels in a message besides node and attempt."""

    id: str
    graph: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt brought: a value or an error, on which worker, in how many seconds."""

    value: Any = None
    error: BaseException | None = None
    worker: str = ""
    duration: float = 0.0


@dataclass(frozen=True, slots=True)
class NodeOutcome:
    """A node as a barrier or a client sees it."""

    state: NodeState | None
    attempt: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """Leave to run an attempt, with the values that the store has for the names that were asked for.

    ``losses`` says how often the attempt lost its process before.
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    losses: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to run: where it runs, and whether the broker delivered its message again."""

    run: RunRef
    plan: Plan
    node: str
    number: int
    worker: str
    redelivered: bool = False


class RunStore(Protocol):
    """The truth about runs. Each method is atomic."""

    def begin(self, attempt: Attempt, names: Sequence[str]) -> Begun | None:
        """Leave to run an attempt, or None: it is stale. ``names`` are looked up in results, then in the channel."""

    def commit(self, run: RunRef, transition: Transition, outcome: Outcome | None = None) -> Applied:
        """Carries a transition out, with the outcome that belongs to it, or refuses it as stale.

        Raises:
            SerializationError: the outcome cannot be stored; nothing was changed.
        """

    def outcomes(self, run: RunRef, nodes: Sequence[str]) -> list[NodeOutcome]:
        """How each of ``nodes`` stands, in their order."""

    def results(self, run: RunRef, nodes: Sequence[str]) -> dict[str, Any]:
        """The results that are there, by node."""

    def acknowledge(self, run: RunRef, commands: Iterable[Command]) -> None:
        """Takes commands that were carried out from the outbox."""


class Executor(Protocol):
    """Where nodes run."""

    @property
    def fires_barriers(self) -> bool:
        """Whether the end of a group's last member brings about its barrier without being told (a chord)."""

    def send(self, run: RunRef, plan: Plan, commands: Sequence[Command]) -> None:
        """Sees to it that the commands are carried out, here or elsewhere, soon. Returns at once."""


class Channel(Protocol):
    """The key/value space that the tasks of a run share. Every method is atomic, in every backend."""

    def set(self, key: str, value: Any) -> None: ...

    def get(self, key: str, default: Any = None) -> Any: ...

    def delete(self, key: str) -> bool: ...

    def exists(self, key: str) -> bool: ...

    def keys(self) -> list[str]: ...

    def clear(self) -> None: ...

    def append(self, key: str, value: Any) -> int:
        """Adds to the end of the list under ``key``, made if absent; returns its new length."""

    def prepend(self, key: str, value: Any) -> int:
        """Adds to the front of the list under ``key``, made if absent; returns its new length."""

    def atomic_add(self, key: str, amount: int | float = 1) -> int | float:
        """Adds to the number under ``key``, 0 if absent; returns the sum."""
