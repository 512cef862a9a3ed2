"""`python -m tests.bench.beyond --write`: measures what `docs/scale.md` says in its table, and writes it there.

What is measured is the server's CPU time, its commands and its memory: they depend little on what else the machine
does. What a server carries is worked out from that, for a core that is 70 % busy.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graflow_celery import Settings, WorkflowContext
from graflow_celery.embedded import EmbeddedCluster, EmbeddedServer
from graflow_celery.redis_backend.client import connect
from graflow_celery.settings import load_settings
from tests.bench.crowd import Crowd, Tick, crowd, tick
from tests.bench.fleet import Fleet, measured
from tests.bench.speed import flows as workflows

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
BEGIN, END = "<!-- measured: make bench-beyond -->", "<!-- end of what was measured -->"
#: How busy a server's one thread may be before what waits for it waits for long.
BUSY = 0.7
MEMBERS, HOPS, RUNS, ACTIVE = 2_000, 300, 1_000, 1_000
HELD = 16

Row = tuple[str, str, str]


@dataclass(frozen=True)
class Cost:
    """Of one member, or hop: the server's CPU seconds, commands, bytes that it keeps when the run has ended."""

    cpu: float
    commands: float
    kept: float


def cost(settings: Settings, wf: WorkflowContext, units: int) -> Cost:
    client = connect(settings.redis_url)
    wf.execute(backend="celery", settings=settings, timeout=300)
    before = _facts(client)
    wf.execute(backend="celery", settings=settings, timeout=300)
    cpu, commands, kept = (b - a for a, b in zip(before, _facts(client), strict=True))
    client.close()
    return Cost(cpu / units, commands / units, kept / units)


def _facts(client: Any) -> tuple[float, float, float]:
    cpu, stats, memory = client.info("cpu"), client.info("stats"), client.info("memory")
    return cpu["used_cpu_user"] + cpu["used_cpu_sys"], stats["total_commands_processed"], memory["used_memory"]


def rows(member: Cost, hop: Cost, runs: Crowd, look: Tick, fleet: Fleet) -> list[Row]:
    asked = fleet.calls["unserved: of each submit"]
    calls, one = fleet.calls, runs.cpu / runs.count
    beats = min(BUSY / fleet.share, BUSY / fleet.busy_share) * fleet.workers
    return [
        _row("a member of a group", member, "members"),
        _row("a hop of a chain", hop, "hops"),
        (
            "a run of four tasks, of 1,000 at once",
            f"{one * 1e3:.1f} ms, {runs.commands / runs.count:,.0f} commands, {runs.kept / runs.count / 1e3:.1f} KB",
            f"{BUSY / one:,.0f} runs/s; {1e9 / (runs.kept / runs.count):,.0f} ended runs a GB",
        ),
        (
            f"a look of the monitor at {look.active:,} runs, all due",
            f"{look.sweep_cpu * 1e3:.0f} ms; {look.sweep_seconds * 1e3:.0f} ms in the monitor",
            f"{10 * BUSY / (look.sweep_cpu / look.active):,.0f} active runs, each looked at every 10 s",
        ),
        (
            "a beat, lease unchanged / changed",
            f"{calls['beat, unchanged'].cpu * 1e6:.0f} / {calls['beat, changed'].cpu * 1e6:.0f} us",
            f"{beats:,.0f} workers at a beat a second, with nothing else to do",
        ),
        (
            f"beats of {fleet.workers:,} workers that hold {fleet.held} tasks each",
            f"{fleet.share:.0%} of a core, {fleet.busy_share:.0%} if all leases change; {fleet.memory:,.0f} B a worker",
            "see above",
        ),
        (
            "a tick of the monitor (lead, declare)",
            f"{(calls['lead: a tick of the monitor'].cpu + calls['declare: nobody is dead'].cpu) * 1e6:.0f} us",
            "does not grow with the workers",
        ),
        (
            f"what a submit asks of {fleet.workers:,} workers",
            f"{asked.cpu * 1e6:.0f} us, {asked.bytes_out / 1e3:.1f} KB",
            f"{BUSY / asked.cpu:,.0f} submits/s, if some of the first workers looked at consume its queues",
        ),
    ]


def _row(what: str, found: Cost, units: str) -> Row:
    told = f"{found.cpu * 1e6:.0f} us, {found.commands:.1f} commands, {found.kept:,.0f} B"
    return what, told, f"{BUSY / found.cpu:,.0f} {units}/s; {1e9 / max(found.kept, 1):,.0f} ended {units} a GB"


def page(found: list[Row], server: str) -> str:
    lines = [
        BEGIN,
        f"Python {platform.python_version()}, server {server}, {os.cpu_count()} cores of {platform.machine()}.",
        "",
        f"| what | measured: server CPU, commands, memory | worked out: one server, {BUSY:.0%} of a core |",
        "| --- | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in found),
        END,
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.beyond", description=__doc__)
    parser.add_argument("--workers", type=int, default=10_000, help="of the fleet that is simulated")
    parser.add_argument("--write", action="store_true", help="into docs/scale.md")
    chosen = parser.parse_args()
    logging.disable(logging.WARNING)
    with EmbeddedCluster(workers=2, concurrency=1) as cluster:
        settings = cluster.settings
        version = connect(settings.redis_url).info("server")["redis_version"]
        member = cost(settings, workflows.fan_out(MEMBERS), MEMBERS)
        hop = cost(settings, workflows.line(HOPS), HOPS)
        runs = crowd(settings, RUNS)
    with EmbeddedServer() as server:
        look = tick(load_settings(redis_url=server.url, broker_url="", result_backend=""), ACTIVE)
        fleet = measured(chosen.workers, HELD, server.url)
    text = page(rows(member, hop, runs, look, fleet), version)
    print(text)
    if chosen.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{text}{rest.partition(END)[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
