"""What was measured, as rows of a table."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.bench.faults.crashes import BOUND, Try

TITLE = "faults: medians; (least to most; number of tries)"
HEADINGS = (
    "figure",
    "bar",
    "ours",
    "holds",
    "plain Celery, defaults",
    "plain Celery, acks_late + reject_on_worker_lost",
)


@dataclass(frozen=True)
class Row:
    """One figure: the bar, what we have, whether that keeps to it, and plain Celery in the same fault, twice."""

    figure: str
    bar: str
    ours: str
    holds: bool
    plain: str = ""
    plain_late: str = ""

    def cells(self) -> tuple[str, ...]:
        return self.figure, self.bar, self.ours, "yes" if self.holds else "NO", self.plain, self.plain_late


def within(tries: Sequence[Try], bar: float, worst: float) -> bool:
    """Whether the median keeps to the bar, every try to ``worst``, and nothing was wrong."""
    if not tries or any(item.problems for item in tries):
        return False
    times = [BOUND if item.seconds is None else item.seconds for item in tries]
    return statistics.median(times) <= bar and max(times) <= worst


def summary(tries: Sequence[Try]) -> str:
    """Median, range, number; what did not recover; remarks and problems with their counts."""
    if not tries:
        return "not tried"
    times = [item.seconds for item in tries if item.seconds is not None]
    parts = []
    if times:
        parts.append(f"{statistics.median(times):.2f} s ({min(times):.2f} to {max(times):.2f}; {len(times)})")
    if len(times) < len(tries):
        parts.append(f"> {BOUND:.0f} s, not recovered ({len(tries) - len(times)})")
    remarks = Counter(item.note for item in tries if item.note)
    problems = Counter(problem for item in tries for problem in item.problems)
    parts += [f"{text} ({count})" for text, count in remarks.items()]
    parts += [f"WRONG: {text} ({count})" for text, count in problems.items()]
    return "; ".join(parts)
