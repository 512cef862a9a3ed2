"""Every kind of pool: a worker that dies or ends, a task that silences its process, one that nobody can end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from graflow_celery import RunStatus
from graflow_celery.errors import TimeLimitError
from tests.fault.bodies import grinding
from tests.fault.stand import FAST, Caller, Gate, Stand, audit, events, right_result, stand

pytestmark = pytest.mark.workers

#: Longer than a lease lasts.
LONG = 4.0


@pytest.fixture(scope="module", params=["threads", "gevent", "solo"])
def stood(request: pytest.FixtureRequest) -> Iterator[Stand]:
    with stand(arguments=["--pool", request.param], **FAST) as made:
        yield made


@pytest.fixture
def two(stood: Stand) -> Stand:
    """Two workers whose tasks run in their main processes."""
    stood.wake()
    return stood


def nodes(at: Stand) -> list[str]:
    """As many as one of the workers runs at a time."""
    lease = at.lease(at.workers[0])
    assert lease is not None
    return ["a"] if lease.pool == "solo" else ["a", "b"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_killed_or_told_to_end(two: Stand, tmp_path: Path, number: signal.Signals) -> None:
    gate, names = Gate(tmp_path), nodes(two)
    run = two.submit(gate.group(names))
    caller = Caller(run)
    begun = gate.wait(len(names))
    [victim] = [worker for worker in two.workers if worker.process.pid == begun[0].pid]
    running = {item.node for item in begun if item.pid == victim.process.pid}
    victim.kill(number)
    if number is signal.SIGKILL:
        again = gate.wait(len(running), attempt=2)
        assert {item.node for item in again} == running
    gate.open()
    assert caller.returns() is RunStatus.SUCCEEDED
    right_result(run, names)
    assert all(run.result(node) == f"{node}-{2 if number is signal.SIGKILL else 1}" for node in running)
    assert victim.process.wait(10) is not None


def test_a_task_past_its_time_limit_that_no_worker_can_end_is_failed_by_the_monitor(two: Stand, tmp_path: Path) -> None:
    gate, names = Gate(tmp_path), nodes(two)
    run = two.submit(gate.group(names, time_limit=1.0))
    assert Caller(run).returns(timeout=20) is RunStatus.FAILED
    gate.open()
    audit(run, unfinished=["tally"])
    with pytest.raises(TimeLimitError, match=r"time_limit of 1 s"):
        run.result("a")


def test_a_call_that_holds_the_gil_silences_a_worker_without_processes(two: Stand, tmp_path: Path) -> None:
    """Its task is taken for lost and runs elsewhere; what it comes to here does not count."""
    gate = Gate(tmp_path)
    run = two.submit(gate.group(["a"], body=grinding, seconds=LONG))
    assert Caller(run).returns(timeout=30) is RunStatus.SUCCEEDED
    right_result(run, ["a"])
    assert run.result("a") == "a-2"
    [lost] = events(run, "node_lost", "a")
    assert str(lost["reason"]).startswith("worker ")
