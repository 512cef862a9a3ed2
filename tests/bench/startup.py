"""`python -m tests.bench.startup`: how long imports and commands take to start, beside a bare interpreter and Celery's.

All take turns; medians, in milliseconds, and the median of the ratios to `python -c pass` of the same round.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from graflow_celery.cli.main import COMMANDS

BIN = Path(sys.executable).parent
BARE = "python -c pass"
STARTS: dict[str, list[str]] = {
    BARE: [sys.executable, "-c", "pass"],
    "import graflow_celery": [sys.executable, "-c", "import graflow_celery"],
    "from graflow_celery import task, workflow": [sys.executable, "-c", "from graflow_celery import task, workflow"],
    "import celery": [sys.executable, "-c", "import celery"],
    "celery --help": [str(BIN / "celery"), "--help"],
    "graflow-celery --help": [str(BIN / "graflow-celery"), "--help"],
    **{f"graflow-celery {name} --help": [str(BIN / "graflow-celery"), name, "--help"] for name in COMMANDS},
}


def milliseconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return (time.perf_counter() - began) * 1000


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.startup", description=__doc__)
    parser.add_argument("--repeat", type=int, default=7, help="rounds that count")
    parser.add_argument("--only", default="", help="only the starts whose name holds this text, and the bare one")
    chosen = parser.parse_args()
    starts = {name: command for name, command in STARTS.items() if chosen.only in name or name == BARE}
    rounds = [{name: milliseconds(command) for name, command in starts.items()} for _ in range(chosen.repeat + 1)][1:]
    table = Table(title="milliseconds, medians")
    for heading in ("start", "ms", "least", "times the bare interpreter"):
        table.add_column(heading, justify="left" if heading == "start" else "right")
    for name in starts:
        times = [one[name] for one in rounds]
        ratio = statistics.median(one[name] / one[BARE] for one in rounds)
        table.add_row(name, f"{statistics.median(times):.0f}", f"{min(times):.0f}", f"{ratio:.1f}")
    console = Console(width=110 if not sys.stdout.isatty() else None)
    console.print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
