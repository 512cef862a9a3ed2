"""What was counted, as rows of a table."""

from __future__ import annotations

from dataclasses import dataclass

TITLE = "content: uploads, bytes and round trips"
HEADINGS = ("figure", "bar", "ours", "holds", "raw Celery", "graflow 0.2.0")


@dataclass(frozen=True)
class Row:
    """One figure: the bar, what we have, whether that keeps to it, and the others where their work is the same."""

    figure: str
    bar: str
    ours: str
    holds: bool | None
    raw: str = ""
    peer: str = ""

    def cells(self) -> tuple[str, ...]:
        holds = "" if self.holds is None else "yes" if self.holds else "NO"
        return self.figure, self.bar, self.ours, holds, self.raw, self.peer
