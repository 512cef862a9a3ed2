"""Whether everything that was in a queue at some time has left it since. By counting, whatever broker it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

#: How many messages wait in a queue; None where the broker does not say.
Depth = Callable[[str], int | None]


class Receivers(Protocol):
    """What workers have received, as of their last beats."""

    def received(self, queues: Sequence[str]) -> Mapping[str, int]:
        """How many messages of each queue so far."""

    def oldest_beat(self) -> float | None:
        """Seconds since the beat of the live worker that beat the longest ago; None if no worker lives."""


@dataclass(frozen=True, slots=True)
class _Look:
    at: float
    depth: int
    received: int | None = None


class Turnover:
    """Tells up to when the messages of a queue have all been received.

    A look notes how many messages wait. When every worker has beaten since, their counts cover what they had received
    before the look; when they have received as many again as waited then, all of those are out, first in, first out.
    Where priorities or a redelivery break the order, a message may seem lost that still waits; it is sent again, and
    the fence makes that harmless.
    """

    def __init__(self, depth: Depth, receivers: Receivers) -> None:
        self._depth = depth
        self._receivers = receivers
        self._looks: dict[str, _Look] = {}
        self._up_to: dict[str, float] = {}

    def up_to(self, queue: str, now: float) -> float:
        """The time up to which what was sent to ``queue`` has been received, as far as is known; 0 if nothing is."""
        look = self._looks.get(queue)
        if look is None:
            depth = self._depth(queue)
            if depth is not None:
                self._looks[queue] = _Look(now, depth)
        elif (age := self._receivers.oldest_beat()) is not None and (look.received is not None or now - age > look.at):
            received = self._receivers.received([queue])[queue]
            base = received if look.received is None else look.received
            self._looks[queue] = _Look(look.at, look.depth, base)
            if received >= base + look.depth:
                self._up_to[queue] = look.at
                del self._looks[queue]
        return self._up_to.get(queue, 0.0)
