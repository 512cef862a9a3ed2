"""What was counted, as a table on the terminal and as Markdown."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from rich.table import Table

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


def shown(rows: Sequence[Row]) -> Table:
    table = Table(title="content: uploads, bytes and round trips", show_lines=True)
    for heading in HEADINGS:
        table.add_column(heading)
    for row in rows:
        table.add_row(*row.cells())
    return table


def markdown(rows: Sequence[Row], facts: str) -> str:
    lines = [facts, "", f"| {' | '.join(HEADINGS)} |", f"|{' --- |' * len(HEADINGS)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row.cells())} |" for row in rows), ""])


def facts(server: Any) -> str:
    """The machine and the versions, in one line."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("celery", "kombu", "redis"))
    found = server.info("server")
    return (
        f"Python {platform.python_version()}, {versions}, "
        f"server {found.get('valkey_version', found['redis_version'])}, "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    )
