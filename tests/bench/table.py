"""What was measured, as a table on the terminal and as Markdown, and where it was measured: for all benchmarks."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Protocol

from rich.table import Table

LIBRARIES = ("celery", "kombu", "redis")


class Line(Protocol):
    """A row, as text: a cell for each heading."""

    def cells(self) -> tuple[str, ...]: ...


def shown(title: str, headings: Sequence[str], rows: Sequence[Line]) -> Table:
    table = Table(title=title, show_lines=True)
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*row.cells())
    return table


def markdown(headings: Sequence[str], rows: Sequence[Line], facts: str) -> str:
    lines = [facts, "", f"| {' | '.join(headings)} |", f"|{' --- |' * len(headings)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row.cells())} |" for row in rows), ""])


def facts(server: Any, *more: str) -> str:
    """The machine and the versions, in one line."""
    versions = (f"{name} {version(name)}" for name in LIBRARIES)
    found = server.info("server")
    parts = [
        f"Python {platform.python_version()}",
        *versions,
        f"server {found.get('valkey_version', found['redis_version'])}",
        f"{platform.system()} {platform.machine()}",
        f"{os.cpu_count()} cores",
        f"load {os.getloadavg()[0]:.1f}",
        *more,
    ]
    return ", ".join(parts)
