"""A process dies between every two steps of a run, each at least once: the run comes to its end as if it had not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import pytest

from graflow_celery import Run
from graflow_celery.distributed import new_run_id
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.environment import worker_environment
from graflow_celery.failpoints import VARIABLE, Action, Point, arm, fired
from graflow_celery.runs import client_runtime
from graflow_celery.testing import embedded_cluster, wait_until
from tests.fault.shape import audit, shape

pytestmark = pytest.mark.workers

CLIENTS = (
    Point.RUN_CREATED,
    Point.MESSAGES_MADE,
    Point.MESSAGES_SENT,
    Point.MESSAGES_ACKNOWLEDGED,
)


@dataclass(frozen=True)
class Fault:
    """What dies, and where; ``before``: what has to die first for anything to get there."""

    point: Point
    subject: str = ""
    action: Action = Action.KILL
    before: tuple[Point, Action, str] | None = None

    def __str__(self) -> str:
        return "-".join(filter(None, (self.point, self.subject, self.action)))


CHILDREN = [
    *(Fault(point, "b") for point in Point if point.startswith("node.")),
    Fault(Point.NODE_COMMITTED, "first"),
    Fault(Point.NODE_COMMITTED, "double[1]"),
    Fault(Point.NODE_COMMITTED, "last"),
    Fault(Point.NODE_BEGUN, "c", Action.EXIT),
    *(Fault(point, "double") for point in Point if point.startswith("group.")),
    *(Fault(point) for point in Point if point.startswith("messages.")),
    *(Fault(point, group) for point in Point if point.startswith("barrier.") for group in ("inner", "outer")),
    *(Fault(Point.NODE_COMMITTED, part) for part in ("a", "d")),
]
DEAD_WORKER = (Point.NODE_BEGUN, Action.KILL_WORKER, "b")
DEAD_CHILD = (Point.NODE_BEGUN, Action.KILL, "b")
UNSENT = (Point.NODE_COMMITTED, Action.KILL, "first")
WORKERS = [
    Fault(Point.NODE_COMMITTED, "b", Action.KILL_WORKER),
    Fault(Point.MESSAGES_BROKEN_OFF, "", Action.KILL_WORKER),
    Fault(Point.BARRIER_COMMITTED, "outer", Action.KILL_WORKER),
    *(Fault(point, "b", before=DEAD_CHILD) for point in Point if point.startswith("child.")),
    *(
        Fault(point, before=UNSENT if point is Point.MONITOR_CLAIMED else DEAD_WORKER)
        for point in Point
        if point.startswith("monitor.")
    ),
    Fault(Point.NODE_BEGUN, "b", Action.STOP_WORKER),
]
#: While workers that died are started again, the others lose a process or two of their pools.
FAULTS = [fault for three in zip_longest(CHILDREN[::2], CHILDREN[1::2], WORKERS) for fault in three if fault]


@pytest.fixture(scope="module")
def armory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("failpoints")


@pytest.fixture(scope="module")
def started(armory: Path) -> Iterator[EmbeddedCluster]:
    with embedded_cluster(workers=3, concurrency=2, env={VARIABLE: str(armory)}) as cluster:
        yield cluster


@pytest.fixture
def cluster(started: EmbeddedCluster, armory: Path) -> Iterator[EmbeddedCluster]:
    """Three nodes of which one is up and the others start at the least; nothing is armed. What was stopped goes on."""
    for path in armory.iterdir():
        path.unlink()
    for worker in started.workers:
        worker.start()
    wait_for(started, 1)
    yield started
    for worker in started.workers:
        if worker.process.running:
            with suppress(ProcessLookupError):
                os.killpg(worker.process.pid, signal.SIGCONT)


def wait_for(cluster: EmbeddedCluster, count: int) -> None:
    """Waits until so many nodes are ready."""
    liveness = client_runtime(cluster.settings).liveness

    def ready() -> bool:
        running = {worker.process.pid for worker in cluster.workers if worker.process.running}
        return len(running & {lease.pid for lease in liveness.workers()}) >= count

    wait_until(ready, timeout=60, description=f"{count} nodes to be ready")


def test_every_point_has_a_process_that_dies_there() -> None:
    assert {fault.point for fault in FAULTS} | set(CLIENTS) == set(Point)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_worker_that_dies_between_two_steps_costs_no_step(
    cluster: EmbeddedCluster, armory: Path, fault: Fault
) -> None:
    if fault in WORKERS:
        wait_for(cluster, len(cluster.workers))
    if fault.before is not None:
        arm(armory, *fault.before)
    arm(armory, fault.point, fault.action, fault.subject)
    run = shape().submit(settings=cluster.settings)
    # Not by run.wait(): a client that waits may lead the monitors, and nothing is armed in this process.
    wait_until(lambda: run.status.is_terminal, timeout=40, description="the run to end")
    assert wait_until(lambda: fired(armory, fault.point), description=f"a process to die at {fault.point}")
    audit(run, cluster.settings)


@pytest.mark.parametrize("point", CLIENTS, ids=str)
def test_a_client_that_dies_between_two_steps_leaves_a_run_that_goes_on(
    cluster: EmbeddedCluster, armory: Path, tmp_path: Path, point: Point
) -> None:
    arm(tmp_path, point, Action.KILL)
    run_id = new_run_id()
    environment = worker_environment(cluster.settings, {VARIABLE: str(tmp_path)})
    command = [sys.executable, "-m", "tests.fault.shape", run_id]
    client = subprocess.run(command, env=environment, check=False, timeout=60, capture_output=True)
    assert client.returncode == -9, client.stderr.decode()
    run = Run.get(run_id, cluster.settings)
    run.wait(timeout=30)
    audit(run, cluster.settings)


def test_nothing_that_was_armed_is_left(cluster: EmbeddedCluster) -> None:
    """The runs above left no attempt with a worker and no message in a queue."""
    runtime = client_runtime(cluster.settings)
    wait_until(
        lambda: not any(lease.held for lease in runtime.liveness.workers()), description="the workers to hold nothing"
    )
    assert runtime.depth(cluster.settings.queue) == 0
