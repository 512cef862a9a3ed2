"""What can happen in a run. Past tense, frozen; the Scheduler's only input besides the plan.

``node`` and ``group`` are activation keys (see `activation`). Facts that only the store knows, such as how often an
attempt was retried before, come with the event; so does chance (``jitter``, drawn by whoever reports a failure).
"""

from __future__ import annotations

from dataclasses import dataclass

from graflow_celery.core.quick import quick


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The run was accepted and nothing of it ran yet. ``timeout`` in seconds, if it has one."""

    timeout: float | None = None


@quick
@dataclass(frozen=True, slots=True)
class NodeSucceeded:
    """``goto``: the nodes that it jumps to, by id. ``added``: the group that holds the tasks that it added.

    ``leaves``: what the graph has after the node is not reached from it; so it is whenever it jumps.
    """

    node: str
    attempt: int
    goto: tuple[str, ...] = ()
    added: str | None = None
    leaves: bool = False


@dataclass(frozen=True, slots=True)
class NodeFailed:
    """``retryable`` is False where another attempt cannot help: a missing module, a value that cannot be sent.

    ``retries``: how many retries came before. ``jitter``: a number in [0, 1).
    """

    node: str
    attempt: int
    reason: str
    retryable: bool = True
    retries: int = 0
    jitter: float = 0.5


@dataclass(frozen=True, slots=True)
class NodeLost:
    """The process that ran the attempt died or hangs, or its worker did. ``reason`` says which, and since when.

    ``losses``: how many the node had before. ``max_losses``: the setting's value, for nodes that have none of their
    own.
    ``holder``: the worker that ran it; if another one does by now, nothing was lost. ``jitter``: a number in [0, 1).
    """

    node: str
    attempt: int
    losses: int
    max_losses: int
    reason: str
    holder: str
    jitter: float = 0.5


@dataclass(frozen=True, slots=True)
class NodeReturned:
    """The attempt will not come to an end for no fault of its own: its message got lost, or its worker shut down.

    ``holder``: the worker that ran it; empty if nobody had begun it. If that is not so any more, nothing was lost.
    """

    node: str
    attempt: int
    reason: str
    holder: str = ""


@dataclass(frozen=True, slots=True)
class NodeReentered:
    """The node is about to run in its ``cycle``-th cycle: it ran before in this run, and was reached again."""

    node: str
    attempt: int
    cycle: int


@dataclass(frozen=True, slots=True)
class NodeIterated:
    """The attempt ended and asks to be run again (``next_iteration``)."""

    node: str
    attempt: int


@dataclass(frozen=True, slots=True)
class NodeFinished:
    """The tasks that the node added, in ``group``, have ended.

    ``failure`` says what went wrong with them, ``goto`` where they jump; for ``leaves`` see :class:`NodeSucceeded`.
    """

    node: str
    attempt: int
    group: str
    failure: str | None = None
    goto: tuple[str, ...] = ()
    leaves: bool = False


@dataclass(frozen=True, slots=True)
class NodeSkipped:
    """Every predecessor of the node ended without reaching it, so it will never run (dead-path elimination)."""

    node: str


@dataclass(frozen=True, slots=True)
class MapExpanded:
    """The items of a mapped task were counted and stored."""

    group: str
    items: int


@dataclass(frozen=True, slots=True)
class BarrierReached:
    """Every member of the group has ended, or its time was up, and its policy was asked.

    ``shortfall`` is None if the policy is met; ``goto`` are the nodes outside that members jump to.
    """

    group: str
    shortfall: str | None
    goto: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FeedbackRequested:
    """The attempt waits for the answer to ``request``, at most ``timeout`` seconds before the run counts as waiting."""

    node: str
    attempt: int
    request: str
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class FeedbackAnswered:
    """``attempt`` is the one as which the node waits: the next after the one that asked."""

    node: str
    attempt: int
    request: str


@dataclass(frozen=True, slots=True)
class FeedbackExpired:
    """Nobody answered in time. ``attempt`` as in :class:`FeedbackAnswered`."""

    node: str
    attempt: int
    request: str


@dataclass(frozen=True, slots=True)
class RunTerminated:
    """A task ended the run as done (``terminate_workflow``)."""

    node: str
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class RunCancelledByNode:
    """A task ended the run as cancelled (``cancel_workflow``)."""

    node: str
    attempt: int
    reason: str


@dataclass(frozen=True, slots=True)
class CancelRequested:
    reason: str


@dataclass(frozen=True, slots=True)
class StepsExceeded:
    """More than ``max_steps`` attempts of tasks wanted to begin."""

    max_steps: int


@dataclass(frozen=True, slots=True)
class RunExpired:
    """The run did not end within ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class RunAborted:
    """The run cannot go on for a reason that no node brought about: its graph is lost, say."""

    reason: str


Event = (
    RunStarted
    | NodeSucceeded
    | NodeFailed
    | NodeLost
    | NodeReturned
    | NodeReentered
    | NodeIterated
    | NodeFinished
    | NodeSkipped
    | MapExpanded
    | BarrierReached
    | FeedbackRequested
    | FeedbackAnswered
    | FeedbackExpired
    | RunTerminated
    | RunCancelledByNode
    | CancelRequested
    | StepsExceeded
    | RunExpired
    | RunAborted
)
