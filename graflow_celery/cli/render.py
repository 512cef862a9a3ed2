"""The one place that prints. Results go to stdout, errors and warnings to stderr; colours only where a terminal is."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.pretty import pretty_repr
from rich.table import Table
from rich.text import Text

from graflow_celery.terminal.console import is_terminal, pairs, say, say_json, show, stderr, stdout, style_of, symbols

__all__ = [
    "busy",
    "complain",
    "is_terminal",
    "log_to_stderr",
    "notice",
    "pairs",
    "pretty",
    "say",
    "say_json",
    "show_warnings",
    "stderr",
    "stdout",
    "style_of",
    "symbols",
    "table",
]

RESULT_LINES = 10


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
    show(drawn)


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
