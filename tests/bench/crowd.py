"""`python -m tests.bench.crowd`: many small runs at once, and what the monitor asks for each run that goes on."""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from graflow_celery import ParallelGroup, Settings, WorkflowContext, workflow
from graflow_celery.embedded import EmbeddedCluster, EmbeddedServer
from graflow_celery.redis_backend.client import connect
from graflow_celery.runs import client_runtime
from graflow_celery.settings import load_settings
from graflow_celery.testing import wait_until
from tests.bench.speed.flows import noop

TASKS = 4


@dataclass(frozen=True)
class Crowd:
    """Of ``count`` runs that were submitted one after the other and went on at once.

    Attributes:
        submitted, took: seconds until all were submitted, and until all had ended.
        cpu: of the server, in seconds. ``commands``: how many it was sent.
        keys, kept: how many keys and bytes the ended runs left.
    """

    count: int
    submitted: float
    took: float
    cpu: float
    commands: int
    keys: int
    kept: int


@dataclass(frozen=True)
class Tick:
    """What one look at all active runs costs: seconds on the wall, and of the server's CPU."""

    active: int
    seconds: float
    cpu: float
    sweep_seconds: float
    sweep_cpu: float


def small() -> WorkflowContext:
    """Two tasks side by side, between two others."""
    with workflow("small") as wf:
        members = ParallelGroup([noop.bind(task_id="left"), noop.bind(task_id="right")], name="sides")
        noop.bind(task_id="first") >> members >> noop.bind(task_id="last")
    return wf


def crowd(settings: Settings, count: int) -> Crowd:
    """Submits so many runs and waits for all of them."""
    client, wf = connect(settings.redis_url), small()
    runtime = client_runtime(settings)
    before, began = _facts(client), time.perf_counter()
    runs = [wf.submit(settings=settings) for _ in range(count)]
    submitted = time.perf_counter() - began
    wait_until(lambda: not runtime.store.active(), timeout=600, description=f"{count} runs to end")
    took, after = time.perf_counter() - began, _facts(client)
    ended = [run.status for run in (runs[0], runs[-1])]
    assert {str(status) for status in ended} == {"succeeded"}, ended
    client.close()
    cpu, *counts = (b - a for a, b in zip(before, after, strict=True))
    return Crowd(count, submitted, took, cpu, *map(int, counts))


def _facts(client: Any) -> tuple[float, int, int, int]:
    cpu, stats = client.info("cpu"), client.info("stats")
    used = client.info("memory")["used_memory"]
    return cpu["used_cpu_user"] + cpu["used_cpu_sys"], stats["total_commands_processed"], client.dbsize(), used


def tick(settings: Settings, active: int) -> Tick:
    """What a look costs while so many runs go on, none of them late; and one at everything, as after a death."""
    client, wf, runtime = connect(settings.redis_url), small(), client_runtime(settings)
    client.flushall()
    runtime.content.seen.forget()
    for _ in range(active):
        wf.submit(settings=settings)

    def look(sweep: bool) -> Callable[[], object]:
        return lambda: list(runtime.store.late(sweep=sweep))

    found = []
    for sweep in (False, True):
        before, began = _facts(client)[0], time.perf_counter()
        look(sweep)()
        found += [time.perf_counter() - began, _facts(client)[0] - before]
    client.close()
    return Tick(active, *found)


def measured(counts: list[int], active: list[int]) -> tuple[list[Crowd], list[Tick]]:
    logging.disable(logging.WARNING)
    with EmbeddedCluster(workers=2, concurrency=1) as cluster:
        crowd(cluster.settings, 20)  # imports and caches
        crowds = [crowd(cluster.settings, count) for count in counts]
    with EmbeddedServer() as server:
        settings = load_settings(redis_url=server.url, broker_url="", result_backend="")
        return crowds, [tick(settings, count) for count in active]


def tables(crowds: list[Crowd], ticks: list[Tick]) -> list[Table]:
    runs = Table(title=f"runs at once, of {TASKS} tasks, two worker processes; ms a run")
    for heading in ("runs", "submit", "until all ended", "server CPU", "commands a run", "keys a run", "bytes a run"):
        runs.add_column(heading, justify="right")
    for one in crowds:
        n = one.count
        times = (one.submitted, one.took, one.cpu)
        runs.add_row(
            f"{n:,}",
            *(f"{x / n * 1e3:.2f}" for x in times),
            *(f"{x / n:,.1f}" for x in (one.commands, one.keys, one.kept)),
        )
    looks = Table(title="the monitor's look at active runs, ms in all: nothing due; all of it, as after a death")
    for heading in ("active", "due: wall", "due: server CPU", "sweep: wall", "sweep: server CPU", "sweep us/run"):
        looks.add_column(heading, justify="right")
    for look in ticks:
        spent = (look.seconds, look.cpu, look.sweep_seconds, look.sweep_cpu)
        looks.add_row(
            f"{look.active:,}", *(f"{x * 1e3:.2f}" for x in spent), f"{look.sweep_seconds / look.active * 1e6:.0f}"
        )
    return [runs, looks]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.crowd", description=__doc__)
    parser.add_argument("--runs", type=int, nargs="*", default=[100, 1_000])
    parser.add_argument("--active", type=int, nargs="*", default=[100, 1_000, 3_000])
    chosen = parser.parse_args()
    console = Console(width=150 if not sys.stdout.isatty() else None)
    for one in tables(*measured(chosen.runs, chosen.active)):
        console.print(one)
    return 0


if __name__ == "__main__":
    sys.exit(main())
