"""Who watches: monitors of workers that die or hang, and a process that watches alone when all workers are gone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from graflow_celery import RunStatus
from graflow_celery.environment import worker_environment
from graflow_celery.testing import wait_until
from tests.fault.stand import Caller, Gate, Stand, events, right_result, stand, suspend, wait_for

pytestmark = pytest.mark.workers


@pytest.fixture(scope="module")
def stood() -> Iterator[Stand]:
    with stand() as made:
        yield made


@pytest.fixture
def two(stood: Stand) -> Stand:
    stood.revive()
    return stood


@contextmanager
def monitor(at: Stand) -> Iterator[subprocess.Popen[bytes]]:
    """``graflow-celery monitor`` for the time of the block, leading or standing by."""
    command = [sys.executable, "-m", "graflow_celery.cli.main", "monitor"]
    with subprocess.Popen(command, env=worker_environment(at.settings, {}), stderr=subprocess.PIPE) as process:
        try:
            assert process.stderr is not None
            assert b"monitor on prefix" in process.stderr.readline()
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


@pytest.mark.parametrize("hangs", [False, True], ids=["killed", "hung"])
def test_another_monitor_leads_when_the_leader_is_gone(two: Stand, hangs: bool) -> None:
    leader = two.leader()
    [other] = [worker for worker in two.workers if worker is not leader]
    began = time.monotonic()
    if hangs:
        suspend(leader)
    else:
        leader.kill()
    lease = two.lease(other)
    assert lease is not None
    wait_until(lambda: two.runtime.liveness.leader() == lease.id, timeout=10, description="the other one to lead")
    assert time.monotonic() - began < 3.5, "the leader's lease of 1.5 s, and the beat that finds it gone"


def test_a_monitor_alone_replaces_what_was_lost_and_says_that_nobody_is_there(two: Stand, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    victim, other = two.workers
    other.kill()
    nodes = ["a", "b", "c", "d"]
    with monitor(two):
        run = two.submit(gate.group(nodes))
        gate.wait(2)
        two.hold(victim, run, 4, running=2)
        victim.kill()
        wait_for(run, "node_lost", count=2)
        wait_for(run, "node_returned", count=2)
        wait_for(run, "run_stalled", timeout=30)
        assert run.status is RunStatus.RUNNING
        victim.start()
        gate.open()
        assert Caller(run).returns(timeout=40) is RunStatus.SUCCEEDED
    right_result(run, nodes)
    [stalled] = events(run, "run_stalled")
    assert stalled["reason"] == f"no live worker consumes the queue {two.settings.queue}"
