"""`python -m tests.bench.content` (`make bench-content`): uploads, bytes and round trips of graphs, messages, values.

Counts, not clocks: what the server was asked for (its MONITOR stream), what went in and out of it (its statistics),
and what the client's connections sent. Raw Celery, and graflow 0.2.0 if `--graflow` names a Python that has it, do the
same work on servers of their own; each side has two workers with two places.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from tests.bench.content import graphs, messages, sharing, stage
from tests.bench.content.stage import Sides
from tests.bench.content.table import HEADINGS, TITLE, Row
from tests.bench.table import facts, markdown, shown

FUZZ = Row(
    "tampered, truncated, unsigned, wrongly signed, oversize, unknown-version blobs",
    "0 unpickled, each an error that names it",
    "a test: tests/property/test_blob_fuzz.py",
    None,
)


def figures(sides: Sides, rounds: int, say: Callable[[str], None]) -> dict[str, Callable[[], list[Row]]]:
    """By name, in their order; `messages` looks back on all before it."""
    return {
        "groups": lambda: [graphs.of_groups(sides)],
        "processes": lambda: [graphs.of_processes(sides)],
        "changes": lambda: graphs.of_changes(sides),
        "additions": lambda: [graphs.of_additions(sides)],
        "trips": lambda: graphs.of_round_trips(sides),
        "values": lambda: sharing.of_values(sides, rounds, say),
        "messages": lambda: messages.of_all(sides),
        "fuzz": lambda: [FUZZ],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.content", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each side, where seconds are printed beside counts")
    parser.add_argument("--only", default="", help="only the figures whose name holds this text")
    parser.add_argument("--graflow", default="", metavar="PYTHON", help="a Python in which graflow 0.2.0 is installed")
    parser.add_argument("--markdown", type=Path, help="write the table there too")
    chosen = parser.parse_args(arguments)
    logging.getLogger("graflow_celery").setLevel(logging.ERROR)
    console = Console(width=200 if not sys.stdout.isatty() else None)
    rows: list[Row] = []
    with ExitStack() as running:
        peer = running.enter_context(stage.peer(chosen.graflow)) if chosen.graflow else None
        sides = Sides(running.enter_context(stage.ours()), running.enter_context(stage.raw()), peer)
        here = facts(sides.ours.server)
        console.print(here)
        for name, measured in figures(sides, chosen.rounds, console.print).items():
            if chosen.only in name:
                found = measured()
                rows += found
                for row in found:
                    console.print(f"{name}: {row.ours}")
    console.print(shown(TITLE, HEADINGS, rows))
    if chosen.markdown:
        chosen.markdown.write_text(markdown(HEADINGS, rows, here), encoding="utf-8")
    return 1 if any(row.holds is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
