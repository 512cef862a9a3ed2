"""What the members do, the same for both sides. Times are those of the monotonic clock, which all processes share."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence

#: The order of unequal members, the same on every side and in every run.
SEED = 7


def nap(seconds: float) -> None:
    """Work that asks nothing of a processor, so that it takes as long on a busy machine."""
    threading.Event().wait(seconds)


def burn(seconds: float) -> None:
    """So many seconds of a processor's time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def mixed(short: int, long: int, seconds: tuple[float, float]) -> list[float]:
    """``short`` pieces of the first length and ``long`` of the second, shuffled."""
    pieces = [seconds[0]] * short + [seconds[1]] * long
    random.Random(SEED).shuffle(pieces)
    return pieces


def since(ends: Sequence[float]) -> float:
    """Seconds from the last of ``ends`` to now."""
    return time.monotonic() - max(ends)
