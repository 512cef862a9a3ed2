"""`python -m tests.bench` (`make bench`): medians and ratios against raw Celery, and what each side asks of the server.

One server, one worker node with two pool processes for each side, both running all the time; the sides take turns:
ours, raw, ours, raw. A ratio over 1 says that ours is faster. Counts are differences of the server's own statistics
around one round, the client's waiting included.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.table import Table

from graflow_celery import Settings, WorkflowContext
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.redis_backend.client import connect
from graflow_celery.testing import wait_until

Round = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One piece of work, done by both sides; its time and counts are divided by ``units``."""

    name: str
    unit: str
    units: int
    ours: Round
    raw: Round


@dataclass(frozen=True)
class Measured:
    """One round: seconds, and what the server was asked for meanwhile."""

    seconds: float
    commands: int
    bytes_in: int
    bytes_out: int


def cases(settings: Settings) -> list[Case]:
    from tests.bench import raw, workflows  # raw reads its server from the environment when it is imported

    def ours(wf: WorkflowContext) -> Round:
        return lambda: wf.execute(backend="celery", settings=settings, timeout=300)

    def chord(members: int) -> Round:
        return lambda: raw.chord_of(members).get(timeout=300)

    return [
        Case("fan-out of 1,000", "member", 1000, ours(workflows.fan_out(1000)), chord(1000)),
        Case("fan-out of 100", "member", 100, ours(workflows.fan_out(100)), chord(100)),
        Case(
            "50 barriers of 10, raw chord by chord", "barrier", 50, ours(workflows.barriers(50, 10)), raw.chords_in_turn
        ),
        Case(
            "50 barriers of 10, raw one canvas", "barrier", 50, ours(workflows.barriers(50, 10)), raw.canvas_of_chords
        ),
        Case("chain of 100", "hop", 100, ours(workflows.line(100)), raw.chain_of_100),
    ]


def measure(work: Round, server: Any) -> Measured:
    before, began = server.info("stats"), time.perf_counter()
    work()
    seconds, after = time.perf_counter() - began, server.info("stats")
    names = ("total_commands_processed", "total_net_input_bytes", "total_net_output_bytes")
    return Measured(seconds, *(int(after[name] - before[name]) for name in names))


def table(found: list[tuple[Case, list[Measured], list[Measured]]]) -> Table:
    shown = Table(title="medians of a round; (least to most); ratio: raw / ours, over 1: ours is faster")
    for heading in ("work", "ours", "raw Celery", "ratio", "commands ours / raw", "KB in+out ours / raw"):
        shown.add_column(heading, justify="left" if heading == "work" else "right")
    for case, ours, raw in found:
        each = [statistics.median(a.seconds for a in side) for side in (ours, raw)]
        ratio = statistics.median(b.seconds / a.seconds for a, b in zip(ours, raw, strict=True))
        per_unit = [statistics.median(a.commands for a in side) / case.units for side in (ours, raw)]
        moved = [statistics.median(a.bytes_in + a.bytes_out for a in side) / 1000 for side in (ours, raw)]
        shown.add_row(
            case.name,
            spread(ours, each[0]),
            spread(raw, each[1]),
            f"{ratio:.2f}",
            f"{per_unit[0]:.1f} / {per_unit[1]:.1f} a {case.unit}",
            f"{moved[0]:,.0f} / {moved[1]:,.0f}",
        )
    return shown


def spread(side: list[Measured], median: float) -> str:
    times = [item.seconds for item in side]
    return f"{median:.3f} s ({min(times):.2f} to {max(times):.2f})"


def raw_worker(url: str) -> subprocess.Popen[bytes]:
    arguments = ["-A", "tests.bench.raw", "worker", "--concurrency", "2", "-Q", "raw", "-n", "raw@%h", "-l", "ERROR"]
    environment = {**os.environ, "RAW_CELERY_URL": url}
    output = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-m", "celery", *arguments], env=environment, stdout=output, stderr=output)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--repeat", type=int, default=5, help="rounds of each side that count")
    parser.add_argument("--only", default="", help="only the cases whose name holds this text")
    chosen = parser.parse_args()
    console = Console(width=140 if not sys.stdout.isatty() else None)
    with EmbeddedCluster(workers=1, concurrency=2) as cluster:
        os.environ["RAW_CELERY_URL"] = cluster.settings.broker
        server = connect(cluster.settings.redis_url)
        worker = raw_worker(cluster.settings.broker)
        try:
            from tests.bench import raw

            wait_until(lambda: raw.app.control.ping(timeout=0.5), timeout=30, description="the raw worker")
            versions = ", ".join(f"{name} {version(name)}" for name in ("celery", "kombu", "redis"))
            console.print(
                f"Python {platform.python_version()}, {versions}, server {server.info('server')['redis_version']}, "
                f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
            )
            found = []
            for case in (case for case in cases(cluster.settings) if chosen.only in case.name):
                rounds = [(measure(case.ours, server), measure(case.raw, server)) for _ in range(chosen.repeat + 1)][1:]
                found.append((case, [ours for ours, _ in rounds], [raw for _, raw in rounds]))
            console.print(table(found))
        finally:
            worker.terminate()
            worker.wait(30)
    return 0


if __name__ == "__main__":
    sys.exit(main())
