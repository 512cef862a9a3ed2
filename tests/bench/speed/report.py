"""What was measured, as rows of the table and as JSON."""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.table import Table

from tests.bench.speed.counts import Counts
from tests.bench.speed.figures import Bar, spread

TITLE = "medians of the rounds (least to most); a figure is the median of the rounds' own"
HEADINGS = ("work", "ours", "against", "theirs", "figure", "bar", "verdict", "commands and KB, ours / theirs", "note")
SKIPPED = "skipped"
MOST_COMMANDS = 10


@dataclass(frozen=True)
class Row:
    """One piece of work, and what it is held to. ``value`` is None where nothing was measured; then ``note`` says why.

    ``ours`` and ``theirs`` are the rounds, for JSON; ``units`` into how many members or hops their counts divide.
    """

    name: str
    work: str
    against: str
    value: float | None
    bar: Bar | None = None
    ours_text: str = ""
    theirs_text: str = ""
    counts: str = ""
    note: str = ""
    unit: str = " x"
    units: int = 1
    ours: Sequence[Counts] = ()
    theirs: Sequence[Counts] = ()
    load: float = field(default_factory=lambda: os.getloadavg()[0])

    @property
    def verdict(self) -> str:
        if self.value is None:
            return SKIPPED
        return self.bar.verdict(self.value) if self.bar else ""

    @property
    def figure(self) -> str:
        return "" if self.value is None else f"{self.value:.3g}{self.unit}"

    def cells(self) -> tuple[str, ...]:
        bar = str(self.bar or "")
        texts = (self.work, self.ours_text, self.against, self.theirs_text)
        return *texts, self.figure, bar, self.verdict, self.counts, self.note

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "work": self.work,
            "against": self.against,
            "value": self.value,
            "unit": self.unit.strip(),
            "bar": asdict(self.bar) if self.bar else None,
            "verdict": self.verdict,
            "note": self.note,
            "load": self.load,
            "units": self.units,
            "ours": [_round(item) for item in self.ours],
            "theirs": [_round(item) for item in self.theirs],
        }


def _round(found: Counts) -> dict[str, Any]:
    """Without the counts where none were taken: a peer's, and those of a latency's samples."""
    return asdict(found) if found.commands else {"seconds": found.seconds}


def times(rounds: Sequence[Counts], per: int = 1) -> str:
    return spread([item.seconds / per for item in rounds])


def counted(ours: Sequence[Counts], theirs: Sequence[Counts], units: int, unit: str) -> str:
    """Commands of the server for each unit, and kilobytes of a round in and out, of both sides."""
    commands = [statistics.median(item.commands for item in side) / units for side in (ours, theirs)]
    moved = [statistics.median(item.bytes for item in side) / 1000 for side in (ours, theirs)]
    return f"{commands[0]:.1f} / {commands[1]:.1f} a {unit}; {moved[0]:,.0f} / {moved[1]:,.0f} KB"


def commands_table(row: Row) -> Table:
    """The commands that both sides ask for most, for each unit of a row."""
    sides = [_by_command(rounds, row.units) for rounds in (row.ours, row.theirs) if rounds]
    table = Table(title=f"{row.work}: calls a unit, without those of an idle period")
    for heading in ("ours", row.against)[: len(sides)]:
        table.add_column(heading)
        table.add_column("calls", justify="right")
    for number in range(MOST_COMMANDS):
        cells: list[str] = []
        for side in sides:
            name, calls = side[number] if number < len(side) else ("", None)
            cells += [name, "" if calls is None else f"{calls:.2f}"]
        table.add_row(*cells)
    return table


def _by_command(rounds: Sequence[Counts], units: int) -> list[tuple[str, float]]:
    names = {name for item in rounds for name in item.by_command}
    found = {name: statistics.median(item.by_command.get(name, 0.0) for item in rounds) / units for name in names}
    return sorted(found.items(), key=lambda item: -item[1])
