"""The one place that prints. Results go to stdout, errors and warnings to stderr; colours only where a terminal is."""

from __future__ import annotations

import functools
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.pretty import pretty_repr
from rich.table import Table
from rich.text import Text

WIDE = 200
RESULT_LINES = 10
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


def complain(lines: Sequence[str], kind: str = "error") -> None:
    """Lines on stderr, the first one marked with what they are."""
    first, *more = lines or [""]
    soft = not sys.stderr.isatty()
    stderr().print(Text.assemble((f"{kind}: ", style_of(kind)), first), soft_wrap=soft)
    for line in more:
        stderr().print(line, soft_wrap=soft)


def notice(text: str) -> None:
    """A line for who watches: above a screen that redraws itself, else on stderr."""
    (stdout() if is_terminal() else stderr()).print(Text(text, style="yellow"), soft_wrap=True)


@contextmanager
def busy(text: str) -> Iterator[None]:
    """Says what is being done: on a terminal only while it is."""
    if not is_terminal():
        say(text)
        yield
        return
    with stdout().status(Text(text, style="dim"), spinner_style=style_of("running")):
        yield


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], right: Sequence[str] = ()) -> None:
    """A table without lines around it; the columns named in ``right`` hold numbers."""
    drawn = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    for name in columns:
        wide = name == columns[-1]
        drawn.add_column(
            name,
            justify="right" if name in right else "left",
            no_wrap=not wide,
            overflow="fold" if wide else "ellipsis",
        )
    for row in rows:
        drawn.add_row(*row)
    _print(drawn)


def pairs(facts: Iterable[tuple[str, str | Text]], indent: int = 2) -> None:
    """Names and values, one pair a line, the values aligned."""
    drawn = Table.grid(padding=(0, 2, 0, 0))
    drawn.add_column(style="dim", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in facts:
        drawn.add_row(name, value if isinstance(value, Text) else Text(value))
    _print(Padding(drawn, (0, 0, 0, indent)))


def _print(drawn: RenderableType) -> None:
    """Prints a table; in a file without the spaces that fill its lines up."""
    console = stdout()
    if sys.stdout.isatty():
        console.print(drawn)
        return
    with console.capture() as captured:
        console.print(drawn)
    for line in captured.get().splitlines():
        say(line.rstrip())


def pretty(value: Any, width: int) -> str:
    """A value as a person likes to read it: long ones lose their tail, and say so."""
    text = pretty_repr(value, max_width=max(20, width), max_length=8, max_string=200, max_depth=4)
    lines = text.splitlines() or [""]
    if len(lines) > RESULT_LINES:
        lines = [*lines[: RESULT_LINES - 1], f"... {len(lines) - RESULT_LINES + 1} lines more"]
    return "\n".join(lines)


class WarningLines(logging.Handler):
    """Shows log records of ours the way errors are shown, instead of Python's bare last resort."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(record.getMessage().splitlines()[:3], kind=record.levelname.lower())


def show_warnings() -> None:
    """From now on, warnings of ours are lines on stderr; libraries' only where they are errors."""
    root = logging.getLogger()
    root.handlers[:] = [WarningLines(logging.WARNING)]
    for name in ("celery", "kombu", "amqp", "redis"):
        logging.getLogger(name).setLevel(logging.ERROR)


def log_to_stderr() -> None:
    """From now on, log records of ours are lines on stderr with their time: for what runs as a service."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
