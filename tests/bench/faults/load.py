"""What the heartbeats of a thousand workers, and the monitor that reads them, ask of the server."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import redis

from graflow_celery import Run, Settings
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.place import Place as NodePlace
from graflow_celery.embedded.process import GuardedProcess
from graflow_celery.embedded.scratch import ScratchDirectory
from graflow_celery.environment import worker_environment
from graflow_celery.ports import Attempt, Held, RunRef
from graflow_celery.redis_backend.client import Scripts, connect
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.liveness import Liveness, WorkerLease
from graflow_celery.runs import client_runtime
from graflow_celery.testing import wait_until
from tests.bench.faults import flows
from tests.bench.faults.alarms import ALARMS
from tests.bench.faults.gate import pass_time
from tests.bench.faults.sides import Ours, Place
from tests.bench.faults.table import Row

WORKERS = 1000
TASKS = 8
RUNS = 80
DRIVERS = 4
MOST = 3.0
COUNTED = 20


class Simulated:
    """A worker without a process: its own connection, a lease, the product's own beat."""

    def __init__(self, number: int, settings: Settings) -> None:
        self.lease = WorkerLease(
            name=f"worker{number}@host{number}.example.net",
            queues=(settings.queue,),
            pid=number,
            concurrency=TASKS,
            pool="prefork",
            version="5.7.0",
            boot=f"{number:08x}",
        )
        self.client = connect(settings.redis_url)
        self._liveness = Liveness(
            self.client, Scripts(self.client), Keys(settings.key_prefix), settings.heartbeat_timeout
        )

    def take(self, runtime: Runtime, run: Run, nodes: Sequence[str]) -> None:
        """Begins tasks of a run, which it will hold for ever."""
        reference, held = RunRef(run.id, run.graph_hash), list(self.lease.held)
        for node in nodes:
            attempt = Attempt(reference, run.plan, node, 1, self.lease.name, self.lease.id)
            begun = runtime.store.begin(attempt, NodePlace.of(run.plan, node).scopes, ())
            assert begun is not None, node
            held.append(Held(reference, node, 1, pid=self.lease.pid, running=True))
        self.lease = WorkerLease.of(self.lease.text())  # A lease is frozen.
        object.__setattr__(self.lease, "held", tuple(held))

    def beat(self) -> None:
        self._liveness.beat(self.lease)


def on_the_server(place: Place, seconds: float, say: Callable[[str], None]) -> Row:
    """Percent of a core that the server uses for 1,000 workers with 8 running tasks each, and a monitor."""
    with Ours(place) as session:
        settings, runtime = session.settings, client_runtime(session.settings)
        workers = [Simulated(number, settings) for number in range(WORKERS)]
        runs = _running(settings, runtime, workers)
        server = redis.Redis.from_url(session.url)
        server.delete(settings.queue)  # All is begun; nobody reads the messages.
        for worker in workers:
            worker.client.ping()  # Connects.
        idle = _used(server, lambda: pass_time(seconds))
        requests = _requests_of_a_beat(server, workers[0])
        with _monitor(settings), _beating(workers, settings.heartbeat_interval) as count:
            wait_until(runtime.liveness.leader, timeout=30, description="a monitor that leads")
            pass_time(settings.heartbeat_timeout)  # It looks for the first time.
            before, began = count(), time.monotonic()
            busy = _used(server, lambda: pass_time(seconds))
            rate = (count() - before) / (time.monotonic() - began)
            alive = len(runtime.liveness.workers())
        alarms = sum(record["event"] in ALARMS for run in runs for record in run.events())
        for worker in workers:
            worker.client.close()
    percent = busy - idle
    say(f"load: idle {idle:.2f} %, busy {busy:.2f} %, {rate:.0f} beats a second")
    return Row(
        f"heartbeats and monitor: load on the server with {WORKERS:,} simulated workers x {TASKS} tasks",
        f"under {MOST:g} % of a core, 1 round trip a beat",
        f"{percent:.2f} % at {rate:.0f} beats/s; {requests:g} round trips a beat; {alarms} false alarms",
        percent < MOST and requests == 1 and rate > 0.97 * WORKERS and alive == WORKERS and not alarms,
        "not tried",
        "not tried",
    )


def _running(settings: Settings, runtime: Runtime, workers: Sequence[Simulated]) -> list[Run]:
    """Runs whose tasks the workers run, eight each."""
    members = len(workers) * TASKS // RUNS
    wf = flows.gated("nowhere", [f"task{number}" for number in range(members)])
    runs = [wf.submit(settings=settings) for _ in range(RUNS)]
    free = [(run, f"task{number}") for run in runs for number in range(members)]
    for index, worker in enumerate(workers):
        for run, node in free[index * TASKS : (index + 1) * TASKS]:
            worker.take(runtime, run, [node])
    return runs


@contextmanager
def _beating(workers: Sequence[Simulated], interval: float) -> Iterator[Callable[[], int]]:
    """Every worker beats once an interval, evenly spread. Gives a count of the beats."""
    ending = threading.Event()
    counts = [0] * DRIVERS

    def drive(driver: int) -> None:
        mine = workers[driver::DRIVERS]
        start = time.monotonic()
        while not ending.is_set():
            turn, index = divmod(counts[driver], len(mine))
            ahead = start + interval * (turn + index / len(mine)) - time.monotonic()
            if ahead > 0:
                ending.wait(ahead)
            mine[index].beat()
            counts[driver] += 1

    with ThreadPoolExecutor(DRIVERS) as threads:
        driving = [threads.submit(drive, driver) for driver in range(DRIVERS)]
        try:
            yield lambda: sum(counts)
        finally:
            ending.set()
        for driver in driving:
            driver.result()


@contextmanager
def _monitor(settings: Settings) -> Iterator[None]:
    """The product's monitor, as a process of its own."""
    scratch = ScratchDirectory()
    code = "from graflow_celery.cli.main import main; main()"
    process = GuardedProcess(
        "The monitor",
        [sys.executable, "-c", code, "monitor"],
        log=scratch.make() / "monitor.log",
        env=worker_environment(settings, {}),
        scratch=scratch.path,
    )
    process.start()
    try:
        yield
    finally:
        process.stop(5.0)
        scratch.remove()


def _used(server: Any, work: Callable[[], None]) -> float:
    """Percent of a core that the server used while ``work`` went on."""

    def cpu() -> float:
        info = server.info("cpu")
        return float(info["used_cpu_sys"]) + float(info["used_cpu_user"])

    before, began = cpu(), time.monotonic()
    work()
    return 100 * (cpu() - before) / (time.monotonic() - began)


def _requests_of_a_beat(server: Any, worker: Simulated) -> float:
    """How many requests a beat sends: what the server heard from clients, not from scripts."""
    worker.beat()  # Loads the script.
    with server.monitor() as heard:
        for _ in range(COUNTED):
            worker.beat()
        worker.client.echo("over")  # over a connection that is there
        requests = 0
        for command in heard.listen():
            if command["command"].upper() == "ECHO OVER":
                return requests / COUNTED
            requests += command["client_type"] != "lua"
    raise AssertionError("the server went away")
