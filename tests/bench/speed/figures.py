"""The arithmetic: medians, ratios, percentiles, the best schedule, and whether a bar is met. No clock, no I/O."""

from __future__ import annotations

import heapq
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Bar:
    """What a figure is held to: ``limit`` at least or at most. A goal is reported and fails nothing."""

    limit: float
    sense: Literal["least", "most"]
    unit: str = " x"
    goal: bool = False

    def met(self, value: float) -> bool:
        return value >= self.limit if self.sense == "least" else value <= self.limit

    def verdict(self, value: float) -> str:
        found = "met" if self.met(value) else "missed"
        return f"goal {found}" if self.goal else found

    def __str__(self) -> str:
        words = "at least" if self.sense == "least" else "at most"
        return f"{words} {self.limit:g}{self.unit}"


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the ratios of neighbours: of what was measured in the same round.

    Raises:
        ValueError: the rounds are not as many on both sides, or there are none.
    """
    if len(numerators) != len(denominators) or not numerators:
        raise ValueError(f"a ratio needs as many rounds on both sides: {len(numerators)} and {len(denominators)}")
    return statistics.median(over / under for over, under in zip(numerators, denominators, strict=True))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of ``values`` that ``percent`` of them do not exceed (nearest rank)."""
    ranked = sorted(values)
    return ranked[max(1, math.ceil(len(ranked) * percent / 100)) - 1]


def best_schedule(seconds: Sequence[float], processes: int) -> float:
    """When the longest-first schedule ends: whoever is free takes the longest piece that is left.

    It is at most a third longer than the best there is (Graham, 1969), and as short where small pieces fill the gaps.
    """
    ends = [0.0] * processes
    for piece in sorted(seconds, reverse=True):
        heapq.heapreplace(ends, ends[0] + piece)
    return max(ends)


def spread(seconds: Sequence[float]) -> str:
    """``1.234 s (1.20 to 1.31)``: the median, least and most; in milliseconds where those say more."""
    scale, unit = (1.0, "s") if statistics.median(seconds) >= 0.1 else (1000.0, "ms")
    median, least, most = (scale * value for value in (statistics.median(seconds), min(seconds), max(seconds)))
    return f"{median:.3g} {unit} ({least:.3g} to {most:.3g})"
