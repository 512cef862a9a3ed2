"""A large value is fetched once by a worker, however many processes its pool has."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from graflow_celery import ParallelGroup, WorkflowContext, task, workflow
from graflow_celery.core.state import RunStatus
from graflow_celery.embedded import EmbeddedCluster, EmbeddedWorkers
from graflow_celery.runs import client_runtime
from graflow_celery.testing import embedded_cluster, wait_until

pytestmark = pytest.mark.workers

SIZE = 5_000_000


@pytest.fixture
def cluster() -> Iterator[EmbeddedCluster]:
    with embedded_cluster(workers=1, concurrency=4) as started:
        yield started


def shares() -> WorkflowContext:
    @task
    def big() -> bytes:
        return os.urandom(SIZE)

    @task
    def reads(big: bytes) -> tuple[int, int]:
        return len(big), os.getpid()

    with workflow("shares") as wf:
        big >> ParallelGroup([reads(task_id=f"r{number}") for number in range(24)], name="readers")
    return wf


def directories(pid: int) -> list[Path]:
    return list(Path("/dev/shm").glob(f"graflow-celery-content-*-{pid}-*"))


@pytest.mark.skipif(not os.access("/dev/shm", os.W_OK), reason="looks into /dev/shm")
def test_one_process_fetches_it_for_all(cluster: EmbeddedCluster) -> None:
    client = client_runtime(cluster.settings).client
    run = shares().submit(settings=cluster.settings)
    assert run.wait(timeout=60) is RunStatus.SUCCEEDED
    read = [run.result(f"r{number}") for number in range(24)]
    assert {size for size, _ in read} == {SIZE}
    assert len({pid for _, pid in read}) > 1, "several processes read it"
    # The process that made it has it, and shares it: nobody fetches it at all.
    assert client.info("stats")["total_net_output_bytes"] < SIZE
    pid = cluster.workers[0].process.pid
    [directory] = directories(pid)
    assert len([path for path in directory.iterdir() if path.suffix != ".lock"]) == 1

    with EmbeddedWorkers(cluster.settings, 1, 4) as others:
        other = others[0].process.pid
        cluster.workers[0].stop()
        assert not directories(pid), "a worker that ends in good order leaves nothing behind"
        read = shares().execute(backend="celery", settings=cluster.settings, timeout=60)
        assert len(read) == 24
        os.kill(other, signal.SIGKILL)
        wait_until(lambda: others[0].process.wait(0) is not None, description="the worker to be dead")
        [left] = directories(other)
        with EmbeddedWorkers(cluster.settings, 1, 2):
            assert not left.exists(), "the next one to start removes what a killed one left"


def test_workers_without_a_pool_of_processes_share_nothing(cluster: EmbeddedCluster) -> None:
    with EmbeddedWorkers(cluster.settings, 1, 2, arguments=["--pool", "threads"]) as threads:
        assert not directories(threads[0].process.pid)
