"""A worker is told to end: what it has not begun, and what it has to leave, begins elsewhere at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from graflow_celery import RunStatus
from graflow_celery.testing import wait_until
from tests.fault.stand import BROKERS, FAST, Caller, Gate, Stand, events, right_result, stand

pytestmark = pytest.mark.workers

FOUR = ["a", "b", "c", "d"]
SOFTLY = {"CELERY_CONFIG_MODULE": "tests.fault.slow_shutdown"}


@pytest.fixture(scope="module", params=BROKERS)
def stood(request: pytest.FixtureRequest) -> Iterator[Stand]:
    with stand(request.param, **FAST) as made:
        yield made


@pytest.fixture(scope="module")
def soft() -> Iterator[Stand]:
    with stand("redis", env=SOFTLY, **FAST) as made:
        yield made


def loaded(at: Stand, gate: Gate) -> Caller:
    """The first worker runs two tasks of a run and has taken two more; the second one stands by."""
    at.revive()
    at.only(at.workers[0])
    caller = Caller(at.submit(gate.group(FOUR)))
    gate.wait(2)
    at.hold(at.workers[0], caller.run, 4, running=2)
    at.only(*at.workers)
    return caller


def test_what_a_worker_that_ends_warmly_has_not_begun_begins_elsewhere(stood: Stand, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    caller = loaded(stood, gate)
    running = [begun.node for begun in gate.begun()]
    stood.workers[0].kill(signal.SIGTERM)
    begun = gate.wait(4, timeout=5)
    assert len({item.pid for item in begun}) == 4, "the two others run while the first two still do"
    gate.open()
    assert caller.returns() is RunStatus.SUCCEEDED
    right_result(caller.run, FOUR)
    assert all(caller.run.result(node) == f"{node}-1" for node in running), "what ran may end"
    assert not events(caller.run, "node_lost")
    assert stood.workers[0].process.wait(10) is not None


@pytest.mark.parametrize("gently", [False, True], ids=["cold", "soft"])
def test_what_a_worker_has_to_leave_runs_elsewhere_at_once(
    stood: Stand, soft: Stand, tmp_path: Path, gently: bool
) -> None:
    at = soft if gently else stood
    if gently and not stood.settings.broker.startswith("redis"):
        pytest.skip("one broker is enough for what comes to the same")
    gate = Gate(tmp_path)
    caller = loaded(at, gate)
    running = [begun.node for begun in gate.begun()]
    at.workers[0].kill(signal.SIGQUIT)
    at.hold(at.workers[1], caller.run, 4, running=2, timeout=10)
    gate.open()
    assert caller.returns() is RunStatus.SUCCEEDED
    right_result(caller.run, FOUR)
    returned = events(caller.run, "node_returned")
    assert set(running) <= {record["node"] for record in returned}
    assert not events(caller.run, "node_lost"), "a worker that ends in good order loses nothing"
    wait_until(lambda: not at.workers[0].process.running, description="the worker to end")
