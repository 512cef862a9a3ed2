"""Every kind of pool: a worker that dies or ends, a task that silences its process, one that nobody can end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from graflow_celery import RunStatus
from graflow_celery.errors import TimeLimitError
from tests.fault.bodies import grinding
from tests.fault.stand import Caller, Gate, Stand, audit, events, right_result, stand, wait_for

pytestmark = pytest.mark.workers

#: Longer than a lease lasts.
LONG = 5.0


@pytest.fixture(scope="module", params=["threads", "gevent", "solo"])
def stood(request: pytest.FixtureRequest) -> Iterator[Stand]:
    with stand(arguments=["--pool", request.param]) as made:
        yield made


@pytest.fixture
def two(stood: Stand) -> Stand:
    stood.revive()
    return stood


def width(at: Stand) -> int:
    """How many tasks a worker runs at a time."""
    lease = at.lease(at.workers[0])
    assert lease is not None
    return 1 if lease.pool == "solo" else 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_is_killed_or_told_to_end(two: Stand, tmp_path: Path, number: signal.Signals) -> None:
    gate = Gate(tmp_path)
    victim, heir = two.workers
    wide = width(two)
    nodes = ["a", "b", "c"][: wide + 1]
    two.only(victim)
    run = two.submit(gate.group(nodes))
    caller = Caller(run)
    gate.wait(wide)
    running = [begun.node for begun in gate.begun()]
    two.take(heir)
    victim.kill(number)
    if number is signal.SIGKILL:
        gate.wait(wide, attempt=2)
    gate.open()
    assert caller.returns() is RunStatus.SUCCEEDED
    right_result(run, nodes)
    expected = 2 if number is signal.SIGKILL else 1
    assert all(run.result(node) == f"{node}-{expected}" for node in running)
    victim.process.wait(10)
    assert not victim.process.running


def test_a_task_past_its_time_limit_that_no_worker_can_end_is_failed_by_the_monitor(two: Stand, tmp_path: Path) -> None:
    if width(two) == 1:
        pytest.skip("the pool runs nothing besides")
    gate = Gate(tmp_path)
    run = two.submit(gate.group(["a", "b"], time_limit=1.0))
    caller = Caller(run)
    assert caller.returns(timeout=15) is RunStatus.FAILED
    gate.open()
    audit(run, unfinished=["tally"])
    with pytest.raises(TimeLimitError, match=r"time_limit of 1 s"):
        run.result("a")


def test_a_call_that_holds_the_gil_silences_a_worker_without_processes(two: Stand, tmp_path: Path) -> None:
    """Its task is taken for lost and runs elsewhere; what it comes to here does not count."""
    gate = Gate(tmp_path)
    two.only(two.workers[0])
    run = two.submit(gate.group(["a"], body=grinding, seconds=LONG))
    gate.wait(1)
    wait_for(run, "node_lost", "a", timeout=15)
    two.take(two.workers[1])
    assert Caller(run).returns() is RunStatus.SUCCEEDED
    right_result(run, ["a"])
    assert run.result("a") == "a-2"


def test_a_call_that_holds_the_gil_does_not_silence_a_worker_with_processes(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with stand() as two:
        run = two.submit(gate.group(["a", "b"], body=grinding, seconds=LONG))
        assert Caller(run).returns(timeout=40) is RunStatus.SUCCEEDED
        right_result(run, ["a", "b"])
        assert not events(run, "node_lost")
        assert (
            max(float(record["duration"]) for record in events(run, "node_succeeded")) > two.settings.heartbeat_timeout
        )
