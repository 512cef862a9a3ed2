"""The server stalls, or is killed and comes back with its data: nobody is taken for dead because of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graflow_celery import RunStatus
from graflow_celery.testing import wait_until
from tests.fault.stand import FAST, Caller, Gate, Stand, events, right_result, stand

pytestmark = pytest.mark.workers

#: Longer than a lease lasts.
AWAY = 3.0


@pytest.fixture(scope="module")
def stood(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with stand(data_dir=tmp_path_factory.mktemp("data"), **FAST) as made:
        yield made


@pytest.fixture
def two(stood: Stand) -> Stand:
    stood.revive()
    return stood


def stall(at: Stand) -> None:
    at.cluster.server.kill(signal.SIGSTOP)
    let_pass(AWAY)
    at.cluster.server.kill(signal.SIGCONT)


def restart(at: Stand) -> None:
    at.cluster.server.kill()
    let_pass(1.0)
    at.cluster.server.start()


def let_pass(seconds: float) -> None:
    """The time itself is what is waited for."""
    began = time.monotonic()
    wait_until(lambda: time.monotonic() - began > seconds, timeout=seconds + 5, description="some seconds to pass")


def test_a_worker_that_dies_while_the_server_is_away_is_replaced_after_a_lease(two: Stand, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    victim, heir = two.workers
    two.only(victim)
    run = two.submit(gate.group(["a", "b"]))
    caller = Caller(run)
    gate.wait(2)
    two.hold(victim, run, 2, running=2)
    two.take(heir)
    two.cluster.server.kill(signal.SIGSTOP)
    victim.kill()
    let_pass(AWAY)
    two.cluster.server.kill(signal.SIGCONT)
    gate.wait(2, attempt=2)
    gate.open()
    assert caller.returns() is RunStatus.SUCCEEDED
    right_result(run, ["a", "b"])
    assert len(events(run, "node_lost")) == 2


@pytest.mark.parametrize("away", [stall, restart])
def test_nobody_is_declared_dead_because_the_server_was_away(
    two: Stand, tmp_path: Path, away: Callable[[Stand], None]
) -> None:
    gate = Gate(tmp_path)
    run = two.submit(gate.group(["a", "b"]))
    caller = Caller(run)
    gate.wait(2)
    away(two)
    let_pass(two.settings.heartbeat_timeout + 1.0)  # a verdict would have fallen by now
    assert not events(run, "node_lost")
    assert not events(run, "node_returned")
    assert len(gate.begun()) == 2
    gate.open()
    assert caller.returns() is RunStatus.SUCCEEDED
    right_result(run, ["a", "b"])
