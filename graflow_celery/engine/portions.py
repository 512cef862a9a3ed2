"""How many members of a group travel in one message. Pure arithmetic.

A message costs some hundred microseconds and a process takes one at a time, so members that take next to no time are
sent many together, and long ones by themselves (joblib's ``batch_size="auto"`` is the known idea). Portions shrink
towards the end (guided self-scheduling: Polychronopoulos and Kuck, 1987), so that the processes end at about the same
time.
"""

from __future__ import annotations

import math

#: Seconds of work that a message carries, at the most and at the least.
MOST_WORK, LEAST_WORK = 0.25, 0.005
#: What an attempt costs besides its code, in seconds, roughly.
OVERHEAD = 0.0002
#: Members that one message carries at the most.
MOST = 1000


def portions(count: int, expected: float | None, processes: int, most: int | None = None) -> list[int]:
    """How ``count`` members are divided.

    Args:
        expected: seconds that one takes; None if nothing is known: then the first portions are small.
        processes: how many run tasks at the same time.
        most: a number that the user chose: portions have as many each.
    """
    if most is not None:
        return [min(most, count - first) for first in range(0, count, most)]
    found: list[int] = []
    processes = max(1, processes)
    while count > 0:
        share = math.ceil(count / (2 * processes))
        if expected is None:
            chosen = min(2 ** (len(found) // processes), share)
        else:
            each = expected + OVERHEAD
            chosen = min(int(MOST_WORK / each), max(share, int(LEAST_WORK / each)))
        chosen = max(1, min(chosen, count, MOST))
        found.append(chosen)
        count -= chosen
    return found
