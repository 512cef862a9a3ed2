"""The command line of `python -m tests.bench`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console

from tests.bench.speed import latency, loads, profile, races, rivals
from tests.bench.speed.commands import commands
from tests.bench.speed.races import QUICK, Bench, Sizes
from tests.bench.speed.report import HEADINGS, TITLE, Row, commands_table
from tests.bench.speed.stage import PROCESSES, Stage
from tests.bench.table import facts, markdown, shown

Measured = Callable[[], list[Row]]

DESCRIPTION = f"""\
How fast the engine is beside raw Celery: each row does the same work on both, by turns. A side has {PROCESSES} worker
processes and a server, which run all the time. A figure is the median of the ratios of the rounds; a verdict says
whether it meets its bar. Exit status 1: a bar is missed. Seconds are those of this machine, and noisy; counts are the
server's, without what an idle period of the same length costs."""


def figures(bench: Bench) -> dict[str, Measured]:
    """The rows against raw Celery, by name. Those that need a cluster of other settings come last."""
    sizes = bench.sizes
    return {
        "barrier-1000": partial(races.barrier, bench, "barrier-1000", sizes.members, 10),
        "barrier-100": partial(races.barrier, bench, "barrier-100", sizes.few, 5),
        "barrier-anew": partial(races.anew, bench),
        "barriers-turn": partial(races.barriers, bench, canvas=False),
        "barriers-canvas": partial(races.barriers, bench, canvas=True),
        "chain-fused": partial(races.line, bench, fused=True),
        "work-10ms": partial(loads.equal, bench, busy=False),
        "work-burn": partial(loads.equal, bench, busy=True),
        "mixed": partial(loads.unequal, bench),
        "latency-submit": partial(latency.submit, bench),
        "latency-barrier": partial(latency.barrier, bench),
        "commands-batched": partial(commands, bench, single=False),
        "chain-single": partial(races.line, bench, fused=False),
        "commands-single": partial(commands, bench, single=True),
        "everything": partial(races.everything, bench),
    }


def chosen_figures(bench: Bench, peers: Sequence[str], home: Path, only: Sequence[str]) -> dict[str, Measured]:
    """Those whose name holds one of the texts; all, if there are none."""
    every = figures(bench) | {f"peer-{name}": partial(rivals.rows, bench, name, home) for name in peers}
    return {name: rows for name, rows in every.items() if not only or any(text in name for text in only)}


def names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def peer_names(text: str) -> list[str]:
    found = names(text)
    for name in found:
        if name not in rivals.NAMES:
            raise argparse.ArgumentTypeError(f"there is no peer {name!r}: {', '.join(rivals.NAMES)}")
    return found


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=DESCRIPTION)
    parser.add_argument("--rounds", type=int, default=5, help="of each side, beside one that does not count")
    parser.add_argument("--only", type=names, default=[], help="rows whose name holds one of these: barrier,mixed")
    parser.add_argument("--list", action="store_true", help="print the rows' names")
    parser.add_argument("--peers", type=peer_names, default=[], help=f"other task queues: {','.join(rivals.NAMES)}")
    parser.add_argument("--peers-home", type=Path, default=rivals.HOME, help="where make bench-peers put them")
    parser.add_argument("--commands", action="store_true", help="the server's commands by name, of the rows that count")
    parser.add_argument("--profile", action="store_true", help="no race: where our processes spend their time (py-spy)")
    parser.add_argument("--report", type=Path, default=Path("report"), help="where --profile puts its recordings")
    parser.add_argument("--json", type=Path, help="write rows and rounds there")
    parser.add_argument("--markdown", type=Path, help="write the table there too")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes, to see that it works; the figures say nothing"
    )
    return parser.parse_args(given)


def measure(bench: Bench, chosen: argparse.Namespace, here: str, say: Callable[[str], None]) -> list[Row]:
    """Measures, tells of each row as it comes, and writes what is there so far into the files that are asked for."""
    rows: list[Row] = []
    for measured in chosen_figures(bench, chosen.peers, chosen.peers_home, chosen.only).values():
        found = measured()
        rows += found
        for row in found:
            bar = f" ({row.bar}: {row.verdict})" if row.bar else ""
            say(f"{row.name}: {row.figure or row.note}{bar}; load {row.load:.1f}")
        if chosen.markdown:
            chosen.markdown.write_text(markdown(HEADINGS, rows, here), encoding="utf-8")
        if chosen.json:
            chosen.json.write_text(as_json(rows, here, bench.rounds, bench.sizes), encoding="utf-8")
    return rows


def as_json(rows: Sequence[Row], here: str, rounds: int, sizes: Sizes) -> str:
    found = {"facts": here, "rounds": rounds, "sizes": asdict(sizes), "rows": [row.as_json() for row in rows]}
    return json.dumps(found, indent=1)


def main(given: Sequence[str] | None = None) -> int:
    chosen = arguments(given)
    logging.getLogger("graflow_celery").setLevel(logging.ERROR)
    console = Console(width=220 if not sys.stdout.isatty() else None)
    sizes = QUICK if chosen.quick else Sizes()
    with Stage(sizes.idle) as stage:
        bench = Bench(stage, sizes, chosen.rounds)
        if chosen.list:
            console.print(
                "\n".join(chosen_figures(bench, chosen.peers or rivals.NAMES, chosen.peers_home, chosen.only))
            )
            return 0
        here = facts(stage.ours.server, f"{PROCESSES} worker processes", f"{chosen.rounds} rounds")
        console.print(here)
        if chosen.profile:
            return profile.main(bench, chosen.only, chosen.report, console)
        rows = measure(bench, chosen, here, console.print)
        console.print(shown(TITLE, HEADINGS, rows))
        for row in rows:
            if chosen.commands and row.name.startswith("commands"):
                console.print(commands_table(row))
    console.print(f"load at the end: {os.getloadavg()[0]:.1f}")
    return 1 if any(row.verdict == "missed" for row in rows) else 0
