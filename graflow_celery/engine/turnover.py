"""Whether everything that was in a queue at some time has left it since. By counting, whatever broker it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

#: With so many messages left to be received, it is worth while to look again in a moment.
CLOSE = 100

#: How many messages wait in a queue; None where the broker does not say.
Depth = Callable[[str], int | None]


class Receivers(Protocol):
    """What workers have received, as of their last beats."""

    def received(self, queues: Sequence[str]) -> Mapping[str, int]:
        """How many messages of each queue so far."""

    def oldest_beat(self) -> float | None:
        """Seconds since the oldest of the last beats of those that are not known to be dead; None if there is none."""


@dataclass
class _Queue:
    """What is known of a queue.

    Attributes:
        up_to: what was sent by then has left it.
        look: when somebody looked last, and how many messages waited; the workers' counts may not cover that time yet.
        goal: when somebody looked, and the count with which all that waited then has left. ``missing``: how many of
            those, as far as is known.
    """

    up_to: float = 0.0
    look: tuple[float, int] | None = None
    goal: tuple[float, int] | None = None
    missing: int = 0


class Turnover:
    """Tells up to when the messages of a queue have all been received, or were thrown away.

    A look notes how many messages wait. When every worker has beaten since, their counts cover what they had received
    before the look; when they have received as many again as waited then, all of those are out, first in, first out.
    Of two looks the one counts that is done earlier: after a queue was purged, that is one that found it empty.
    Where priorities or a redelivery break the order, a message may seem lost that still waits; it is sent again, and
    the fence makes that harmless.
    """

    def __init__(self, depth: Depth, receivers: Receivers) -> None:
        self._depth = depth
        self._receivers = receivers
        self._queues: dict[str, _Queue] = {}

    def up_to(self, queue: str, now: float) -> float:
        """The time up to which what was sent to ``queue`` has been received, as far as is known; 0 if nothing is."""
        known = self._queues.setdefault(queue, _Queue())
        age = self._receivers.oldest_beat() if known.look or known.goal else None
        if age is not None:
            self._count(known, self._receivers.received([queue])[queue], now - age)
        if known.look is None and (depth := self._depth(queue)) is not None:
            known.look = (now, depth)
            known.missing = depth if known.goal is None else min(depth, known.missing)
        return known.up_to

    def is_close(self, queue: str) -> bool:
        """Whether a look that was made will soon have told what it can."""
        known = self._queues.get(queue)
        return known is not None and (known.look is not None or known.goal is not None) and known.missing <= CLOSE

    def _count(self, known: _Queue, received: int, covered: float) -> None:
        """``received``: of messages so far; it covers all that was received until ``covered``."""
        if known.look is not None and covered > known.look[0]:
            at, depth = known.look
            if known.goal is None or received + depth <= known.goal[1]:
                known.goal = (at, received + depth)
            known.look = None
        if known.goal is not None:
            known.missing = max(0, known.goal[1] - received)
            if not known.missing:
                known.up_to, known.goal = known.goal[0], None
