"""`python -m tests.bench.fleet`: what so many workers ask of one server, by sending it their beats.

A simulation of workers, measured on a real server: the scripts are the real ones (beat, lead, declare), sent through
`Liveness` as workers and monitors do, for workers that do not exist. What is measured is the server's CPU time for each
kind of call, which does not depend on who calls; its share of a core follows from how often each is made.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from graflow_celery.embedded import EmbeddedServer
from graflow_celery.ports import Held, RunRef
from graflow_celery.redis_backend.client import Scripts, connect
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.liveness import Liveness, WorkerLease

TIMEOUT = 3.0
#: Beats that are sent and measured, at the most; more would tell no more.
MOST_BEATS = 10_000
LOOKS = 20


@dataclass(frozen=True)
class Call:
    """One kind of call: the server's CPU seconds, the caller's seconds on the wall, and bytes sent by the server."""

    name: str
    cpu: float
    seconds: float
    bytes_out: float


@dataclass(frozen=True)
class Fleet:
    """What was measured of so many workers. ``memory``: bytes that the server keeps for one."""

    workers: int
    held: int
    calls: dict[str, Call]
    memory: float

    @property
    def share(self) -> float:
        """The share of one core that beats take whose lease has not changed but for each tenth, one a second."""
        return self.workers * (0.9 * self.calls["beat, unchanged"].cpu + 0.1 * self.calls["beat, changed"].cpu)

    @property
    def busy_share(self) -> float:
        """The same where every lease changes between two beats, as with short tasks."""
        return self.workers * self.calls["beat, changed"].cpu


def lease(number: int, held: int, turn: int = 0) -> WorkerLease:
    """A worker that holds so many attempts; other ones in each turn."""
    attempts = (
        Held(RunRef(f"{number:011x}{turn:05x}", "0123456789abcdef" * 2), f"member-{index}", 1, "", 4242, True)
        for index in range(held)
    )
    return WorkerLease(
        f"celery@host-{number:05}", ("celery",), 4242, held or 1, "prefork", "5.7.0", "0a1b2c3d", tuple(attempts)
    )


class Bench:
    def __init__(self, url: str) -> None:
        self.client = connect(url)
        self.liveness = Liveness(self.client, Scripts(self.client), Keys("graflow"), TIMEOUT)
        #: For whom all that ever beat live: one process cannot beat for so many often enough.
        self.lenient = Liveness(self.client, Scripts(self.client), Keys("graflow"), 3600.0)

    def measure(self, name: str, times: int, call: Callable[[int], object]) -> Call:
        call(0)  # loads the script
        before, began = self._spent(), time.perf_counter()
        for number in range(times):
            call(number)
        seconds, after = time.perf_counter() - began, self._spent()
        return Call(name, (after[0] - before[0]) / times, seconds / times, (after[1] - before[1]) / times)

    def _spent(self) -> tuple[float, float]:
        cpu, stats = self.client.info("cpu"), self.client.info("stats")
        return cpu["used_cpu_user"] + cpu["used_cpu_sys"], stats["total_net_output_bytes"]


def measured(workers: int, held: int, url: str) -> Fleet:
    bench = Bench(url)
    bench.client.flushdb()
    empty = bench.client.info("memory")["used_memory"]
    for number in range(workers):
        bench.liveness.beat(lease(number, held))
    memory = (bench.client.info("memory")["used_memory"] - empty) / workers
    beats = min(workers, MOST_BEATS)
    calls = [
        bench.measure("beat, unchanged", beats, lambda number: bench.liveness.beat(lease(number, held), {"celery": 1})),
        bench.measure("beat, changed", beats, lambda number: bench.liveness.beat(lease(number, held, 1 + number))),
        bench.measure("lead: a tick of the monitor", LOOKS * 10, lambda _: bench.liveness.lead("m", 3.0)),
        bench.measure("declare: nobody is dead", LOOKS * 10, lambda _: _declared(bench)),
        bench.measure("living: 50 workers", LOOKS, lambda _: bench.liveness.living(_names(workers, held))),
        bench.measure("living: all", LOOKS // 4, lambda _: bench.liveness.living()),
        bench.measure("unserved: of each submit", LOOKS // 4, lambda _: bench.lenient.unserved(["celery"])),
    ]
    bench.client.close()
    return Fleet(workers, held, {call.name: call for call in calls}, memory)


def _declared(bench: Bench) -> Any:
    keys = Keys("graflow").workers
    return bench.liveness._scripts["declare"](
        keys=[keys.beats, keys.leases, keys.declared], args=["", 50], client=bench.client
    )


def _names(workers: int, held: int) -> list[str]:
    return [lease(number, held).id for number in range(0, workers, max(1, workers // 50))]


def table(fleets: list[Fleet]) -> Table:
    shown = Table(title="the server's CPU time for one call, in ms; the caller's time on the wall; KB sent")
    shown.add_column("call")
    for fleet in fleets:
        shown.add_column(f"{fleet.workers:,} workers, {fleet.held} held", justify="right")
    for name in fleets[0].calls:
        found = [fleet.calls[name] for fleet in fleets]
        shown.add_row(name, *(f"{x.cpu * 1e3:.3f} | {x.seconds * 1e3:.1f} | {x.bytes_out / 1e3:,.1f}" for x in found))
    shown.add_row("share of a core: beats", *(f"{fleet.share:.0%} to {fleet.busy_share:.0%}" for fleet in fleets))
    shown.add_row("bytes kept for a worker", *(f"{fleet.memory:,.0f}" for fleet in fleets))
    return shown


def fleets(workers: list[int], held: list[int]) -> list[Fleet]:
    with EmbeddedServer() as server:
        return [measured(count, holds, server.url) for count in workers for holds in held]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.fleet", description=__doc__)
    parser.add_argument("--workers", type=int, nargs="*", default=[1_000, 10_000])
    parser.add_argument("--held", type=int, nargs="*", default=[1, 16])
    chosen = parser.parse_args()
    console = Console(width=150 if not sys.stdout.isatty() else None)
    console.print(table(fleets(chosen.workers, chosen.held)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
