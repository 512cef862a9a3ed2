"""What can happen in a run. Past tense, frozen; the Scheduler's only input besides the plan."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run was accepted and nothing of it ran yet."""


@dataclass(frozen=True, slots=True)
class NodeSucceeded:
    node: str
    attempt: int


@dataclass(frozen=True, slots=True)
class NodeFailed:
    """``retryable`` is False where another attempt cannot help: a missing module, a value that cannot be sent."""

    node: str
    attempt: int
    reason: str
    retryable: bool = True


@dataclass(frozen=True, slots=True)
class NodeLost:
    """The process that ran the attempt died, for the ``losses``-th time; the broker delivered its message again.

    ``max_losses`` is the setting's value, for nodes that have none of their own.
    """

    node: str
    attempt: int
    losses: int
    max_losses: int


@dataclass(frozen=True, slots=True)
class NodeSkipped:
    """Every predecessor of the node ended without reaching it, so it will never run (dead-path elimination)."""

    node: str


@dataclass(frozen=True, slots=True)
class BarrierReached:
    """Every member of the group has ended and its policy was asked: ``shortfall`` is None if it is met."""

    group: str
    shortfall: str | None


@dataclass(frozen=True, slots=True)
class CancelRequested:
    reason: str


@dataclass(frozen=True, slots=True)
class RunAborted:
    """The run cannot go on for a reason that no node brought about: its graph is lost, say."""

    reason: str


Event = RunStarted | NodeSucceeded | NodeFailed | NodeLost | NodeSkipped | BarrierReached | CancelRequested | RunAborted
