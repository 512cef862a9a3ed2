"""`python -m tests.bench.memory`: what idle workers hold, and whether anything grows with what was run.

Three parts: an idle worker of ours and one of plain Celery with the same settings, in turns; one pool process that
runs 100,000 members, of one graph and then of graphs of its own for each run; a client that awaits 1,000 runs at once.
RSS is what the process holds, PSS the same with what processes share divided among them, in megabytes.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil  # type: ignore[import-untyped]

from graflow_celery import ParallelGroup, Settings, WorkflowContext, workflow
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.testing import wait_until
from tests.bench.speed import flows

POOL = 2


def rss(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1e6


def pss(process: psutil.Process) -> float:
    return float(process.memory_full_info().pss) / 1e6


@contextmanager
def worker(app: str, settings: Settings, queue: str) -> Iterator[psutil.Process]:
    command = ["-m", "celery", "-A", app, "worker", "--concurrency", str(POOL), "-Q", queue, "-n", f"{queue}@%h"]
    variables = {"RAW_CELERY_URL": settings.broker, "GRAFLOW_CELERY_REDIS_URL": settings.redis_url}
    quiet = subprocess.DEVNULL
    started = subprocess.Popen([sys.executable, *command], env={**os.environ, **variables}, stdout=quiet, stderr=quiet)
    try:
        yield psutil.Process(started.pid)
    finally:
        started.terminate()
        started.wait(60)


def settled(process: psutil.Process, seen: dict[int, tuple[float, float]]) -> bool:
    """Whether it has its pool, and each of its processes has held the same for two seconds."""
    now, clock = {one.pid: rss(one) for one in [process, *process.children()]}, time.monotonic()
    for pid, size in now.items():
        if pid not in seen or abs(size - seen[pid][0]) > 0.1:
            seen[pid] = (size, clock)
    return len(now) > POOL and all(clock - seen[pid][1] > 2.0 for pid in now)


def idle(app: str, settings: Settings, queue: str) -> tuple[float, float, float, float]:
    """RSS and PSS of the parent, and means of those of its pool's processes."""
    with worker(app, settings, queue) as parent:
        seen: dict[int, tuple[float, float]] = {}
        wait_until(lambda: settled(parent, seen), timeout=60, description=f"{app} settled")
        pool = sorted(parent.children(), key=rss)[-POOL:]  # beside them stands what watches over the parent
        return rss(parent), pss(parent), sum(map(rss, pool)) / POOL, sum(map(pss, pool)) / POOL


def compare_idle(settings: Settings, repeat: int) -> None:
    found = [
        (idle("graflow_celery", settings, "celery"), idle("tests.bench.speed.raw", settings, "raw"))
        for _ in range(repeat)
    ]
    print("idle worker, MB            ours   Celery   ratio")
    for number, name in enumerate(("parent, RSS", "parent, PSS", "pool process, RSS", "pool process, PSS")):
        ours, raw = (sorted(one[side][number] for one in found)[repeat // 2] for side in (0, 1))
        print(f"{name:<22} {ours:8.1f} {raw:8.1f} {ours / raw:7.2f}", flush=True)


def of_its_own(number: int, members: int) -> WorkflowContext:
    """A graph that shares no node with others."""
    with workflow(f"run {number}") as wf:
        ParallelGroup([flows.noop.bind(task_id=f"r{number}m{index}") for index in range(members)], name="members")
    return wf


def two_in_turn() -> WorkflowContext:
    with workflow("two in turn") as wf:
        flows.noop.bind(task_id="first") >> flows.noop.bind(task_id="second")
    return wf


def grow(cluster: EmbeddedCluster, runs: int, members: int, *, same: bool) -> None:
    me = psutil.Process()
    print(f"{runs} runs of {members:,} members, {'one graph' if same else 'each its own graph'}: MB after each fifth")
    one = of_its_own(runs, members)
    for number in range(runs):
        wf = one if same else of_its_own(number, members)
        wf.execute(backend="celery", settings=cluster.settings, timeout=600, max_steps=10**6)
        if (number + 1) % max(1, runs // 5) == 0:
            workers = [process for process in me.children(recursive=True) if process.cmdline()[1:3] == ["-m", "celery"]]
            sizes = " ".join(f"{rss(process):.1f}" for process in workers)
            print(f"{(number + 1) * members:>8,} nodes: workers {sizes}, client {rss(me):.1f}", flush=True)


async def await_many(settings: Settings, runs: int) -> None:
    me, wf = psutil.Process(), two_in_turn()
    before = rss(me)
    waiting = asyncio.gather(*[wf.submit(settings=settings) for _ in range(runs)])
    most_memory = most_threads = 0.0
    while not waiting.done():
        most_memory, most_threads = max(most_memory, rss(me)), max(most_threads, threading.active_count())
        await asyncio.wait([waiting], timeout=0.05)
    print(
        f"{runs:,} runs awaited: {before:.1f} MB before, {most_memory:.1f} at most, {most_threads:.0f} threads at most"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="idle workers of each kind")
    parser.add_argument("--runs", type=int, default=20, help="runs of the long run; 0: none")
    parser.add_argument("--members", type=int, default=5000, help="members of each")
    parser.add_argument("--awaited", type=int, default=1000, help="runs that are awaited at once")
    chosen = parser.parse_args()
    with EmbeddedCluster(workers=0) as cluster:
        compare_idle(cluster.settings, chosen.repeat)
    with EmbeddedCluster(workers=1, concurrency=1) as cluster:
        for same in (True, False) if chosen.runs else ():
            grow(cluster, chosen.runs, chosen.members, same=same)
        for _ in range(2):
            asyncio.run(await_many(cluster.settings, chosen.awaited))
    return 0


if __name__ == "__main__":
    sys.exit(main())
