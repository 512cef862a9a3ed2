"""What the heartbeats of a thousand workers, and the monitor that reads them, ask of the server."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis

from graflow_celery import ParallelGroup, Settings, workflow
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.place import Place as PlaceOfNode
from graflow_celery.distributed import Run, client_runtime
from graflow_celery.environment import worker_environment
from graflow_celery.embedded.process import GuardedProcess
from graflow_celery.embedded.scratch import ScratchDirectory
from graflow_celery.ports import Attempt, Held, RunRef
from graflow_celery.redis_backend.client import Scripts, connect
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.liveness import Liveness, WorkerLease
from graflow_celery.testing import wait_until
from tests.bench.faults import flows
from tests.bench.faults.gate import pass_time
from tests.bench.faults.sides import Ours, Place
from tests.bench.faults.table import Row

WORKERS = 1000
TASKS = 8
MEMBERS = 100
DRIVERS = 4
MOST = 3.0


@dataclass(frozen=True)
class Used:
    """Over some seconds: percent of a core that the server used, and what it was asked for."""

    percent: float
    seconds: float
    requests: float


class Simulated:
    """One worker without a process: a connection of its own, a lease, and the product's own beat."""

    def __init__(self, number: int, settings: Settings, held: Sequence[Held]) -> None:
        name = f"worker{number}@host{number}"
        self.lease = WorkerLease(
            name=name,
            queues=(settings.queue,),
            pid=number,
            concurrency=TASKS,
            pool="prefork",
            version="5.7.0",
            boot=f"{number:06x}",
            held=tuple(held),
        )
        client = connect(settings.redis_url)
        self._liveness = Liveness(client, Scripts(client), Keys(settings.key_prefix), settings.heartbeat_timeout)

    def beat(self) -> None:
        self._liveness.beat(self.lease)


def on_the_server(place: Place, seconds: float, say: Callable[[str], None]) -> Row:
    """Eight thousand tasks that run on a thousand workers, each with its beat a second; a monitor of the product's."""
    with Ours(place) as session:
        settings = session.settings
        runtime = client_runtime(settings)
        runs = _open_runs(session)
        workers = _holding(settings, runtime, runs)
        for worker in workers:  # Connects.
            worker.beat()
        server = redis.Redis.from_url(place.server.url)
        idle = _measured(server, seconds, 0, lambda: pass_time(seconds))
        say(f"load: idle server {idle.percent:.2f} %")
        with _monitor(settings):
            for worker in workers:
                worker.beat()
            wait_until(lambda: runtime.liveness.leader() is not None, timeout=30, description="a monitor that leads")
            beats = _drive(workers, settings.heartbeat_interval, 3)  # The monitor finds what is to be looked at once.
            used = _measured(server, seconds, 0, lambda: beats.append(_drive_for(workers, settings, seconds)))
        alone = _measured(server, seconds, 0, lambda: _drive_for(workers, settings, seconds))
        events = [str(record["event"]) for run in runs for record in run.events()]
    raise NotImplementedError
