"""The consoles of this process: colours only where a terminal is, and no line cut where none is."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

WIDE = 200
STYLES = {
    "succeeded": "green",
    "ok": "green",
    "running": "cyan",
    "queued": "cyan",
    "waiting": "dim",
    "asking": "yellow",
    "pending": "yellow",
    "late": "bold red",
    "completed": "green",
    "failed": "bold red",
    "fail": "bold red",
    "error": "bold red",
    "cancelled": "yellow",
    "skipped": "yellow",
    "warn": "yellow",
    "warning": "yellow",
    "interrupted": "yellow",
    "unfinished": "yellow",
}


@functools.cache
def stdout() -> Console:
    """The console on standard output. Not a terminal: no colours, and no line is cut at 80 columns."""
    return Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else WIDE)


@functools.cache
def stderr() -> Console:
    return Console(highlight=False, markup=False, stderr=True, width=None if sys.stderr.isatty() else WIDE)


def is_terminal() -> bool:
    """Whether standard output is a screen that can be redrawn."""
    return sys.stdout.isatty() and not stdout().is_dumb_terminal


def symbols() -> Mapping[str, str]:
    """A sign for each state, in what the terminal's encoding can show."""
    if stdout().encoding.lower().startswith("utf"):
        return {
            "succeeded": "✓",
            "failed": "✗",
            "skipped": "○",
            "unfinished": "○",
            "waiting": "·",
            "running": "▸",
            "asking": "?",
        }
    return {
        "succeeded": "+",
        "failed": "x",
        "skipped": "-",
        "unfinished": "-",
        "waiting": ".",
        "running": ">",
        "asking": "?",
    }


def style_of(state: str) -> str:
    return STYLES.get(state, "")


def say(text: str | Text = "") -> None:
    """One or more lines on stdout, as they are."""
    stdout().print(text, soft_wrap=True)


def say_json(value: Any) -> None:
    """One JSON document on one line; what JSON does not know becomes its text."""
    stdout().print(json.dumps(value, default=repr, ensure_ascii=False), soft_wrap=True)


def pairs(facts: Iterable[tuple[str, str | Text]], indent: int = 2) -> None:
    """Names and values, one pair a line, the values aligned."""
    drawn = Table.grid(padding=(0, 2, 0, 0))
    drawn.add_column(style="dim", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in facts:
        drawn.add_row(name, value if isinstance(value, Text) else Text(value))
    show(Padding(drawn, (0, 0, 0, indent)))


def show(drawn: RenderableType) -> None:
    """Prints a table; in a file without the spaces that fill its lines up."""
    console = stdout()
    if sys.stdout.isatty():
        console.print(drawn)
        return
    with console.capture() as captured:
        console.print(drawn)
    for line in captured.get().splitlines():
        say(line.rstrip())
