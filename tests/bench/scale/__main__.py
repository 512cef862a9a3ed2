"""`python -m tests.bench.scale` (`make bench-scale`): time and memory by size, and the exponents of their growth.

Each shape and size has a process of its own, and a server that knows of nothing else. No workers run: what a run costs
is what its commits cost, one after the other. An exponent of 1 is linear; times under 20 ms and peaks under 4 MB are
left out of it, as they say more of the machine. It is that of the CPU time, the server's included, as other work on the
machine does not count there. Commands that the server took more than 5 ms for are listed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from graflow_celery.embedded import EmbeddedServer
from graflow_celery.environment import settings_environment
from graflow_celery.redis_backend.client import connect
from graflow_celery.settings import load_settings
from tests.bench.scale.picture import drawn
from tests.bench.scale.shapes import SHAPES
from tests.bench.scale.stages import measured
from tests.bench.scale.stopwatch import exponent

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
#: Seconds after which a size is given up; larger ones of the shape are left out then.
LIMIT = 300
LEAST_SECONDS, LEAST_BYTES = 0.02, 4e6
SLOW_MICROSECONDS = 5_000

Laps = dict[int, dict[str, Any]]
#: stage -> size -> lap
Stages = dict[str, Laps]


def child(shape: str, size: int, url: str) -> list[dict[str, Any]]:
    """The laps of one shape and size, measured in another process; none if that took too long."""
    settings = load_settings(redis_url=url, broker_url="", result_backend="")
    arguments = [sys.executable, "-m", "tests.bench.scale", "--child", shape, str(size)]
    try:
        done = subprocess.run(
            arguments,
            env={**os.environ, **settings_environment(settings)},
            stdout=subprocess.PIPE,
            timeout=LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return []
    if done.returncode:
        return [{"stage": "process", "seconds": 0.0, "cpu": 0.0, "peak": 0, "error": f"ended with {done.returncode}"}]
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(shape: str, sizes: list[int], slow: Counter[str]) -> Stages:
    found: Stages = defaultdict(dict)
    for size in sizes:
        with EmbeddedServer() as server:
            client = connect(server.url)
            client.config_set("slowlog-log-slower-than", SLOW_MICROSECONDS)
            client.config_set("slowlog-max-len", 10_000)
            laps = child(shape, size, server.url)
            for entry in client.slowlog_get(10_000):
                words = bytes(entry["command"]).split()
                slow[f"{shape} {size:,}: {b' '.join(words[:1]).decode()} {_key(words)}"] += entry["duration"]
            client.close()
        if not laps:
            found["(gave up)"][size] = {"seconds": float(LIMIT), "cpu": 0.0, "peak": 0, "error": "took too long"}
            break
        for lap in laps:
            found[lap["stage"]][size] = lap
    return found


def _key(words: list[bytes]) -> str:
    """The kind of the first key of a command: what follows the run's id."""
    key = next((word for word in words[1:] if b":" in word), b"")
    return key.rpartition(b":")[2][:20].decode(errors="replace")


def table(shape: str, stages: Stages, sizes: list[int]) -> Table:
    shown = Table(title=f"{shape}: seconds; microseconds and bytes a node at the largest size; exponents")
    for heading in ("stage", *(f"{size:,}" for size in sizes), "CPU us/node", "B/node", "time ^", "memory ^"):
        shown.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage, laps in stages.items():
        measured_at = sorted(size for size in laps if not laps[size]["error"])
        times = exponent(measured_at, [laps[size]["cpu"] for size in measured_at], LEAST_SECONDS)
        peaks = exponent(measured_at, [laps[size]["peak"] for size in measured_at], LEAST_BYTES)
        last = measured_at[-1] if measured_at else 0
        shown.add_row(
            stage,
            *(_cell(laps.get(size)) for size in sizes),
            f"{laps[last]['cpu'] / last * 1e6:.1f}" if last else "",
            f"{laps[last]['peak'] / last:,.0f}" if last else "",
            *("" if found is None else f"{found:.2f}" for found in (times, peaks)),
        )
    return shown


def _cell(lap: dict[str, Any] | None) -> str:
    if lap is None:
        return ""
    return lap["error"][:24] if lap["error"] else f"{lap['seconds']:.3f}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--out", type=Path, default=Path("report"), help="where scale.json and scale.svg go")
    parser.add_argument("--child", nargs=2, default=None, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        print(json.dumps(measured(chosen.child[0], int(chosen.child[1]), load_settings()).told()))
        return 0
    console = Console(width=150 if not sys.stdout.isatty() else None)
    everything: dict[str, Stages] = {}
    slow: Counter[str] = Counter()
    for shape in chosen.shapes:
        everything[shape] = measure(shape, chosen.sizes, slow)
        console.print(table(shape, everything[shape], chosen.sizes))
    for what, micros in slow.most_common(60):
        console.print(f"over {SLOW_MICROSECONDS / 1000:g} ms: {what}: {micros / 1000:.1f} ms in all", highlight=False)
    chosen.out.mkdir(exist_ok=True)
    (chosen.out / "scale.json").write_text(json.dumps(everything))
    (chosen.out / "scale.svg").write_text(drawn(everything))
    console.print(f"drawn: {chosen.out / 'scale.svg'}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
