"""A worker node dies or hangs with all that it runs and holds: its tasks run elsewhere, and count once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from graflow_celery import RunStatus
from graflow_celery.embedded.workers import EmbeddedWorker
from graflow_celery.testing import wait_until
from tests.fault.stand import (
    BROKERS,
    WORST,
    Caller,
    Gate,
    Stand,
    events,
    resume,
    right_result,
    stand,
    suspend,
    wait_for,
)
from tests.processes import is_alive

pytestmark = pytest.mark.workers

FOUR = ["a", "b", "c", "d"]


@pytest.fixture(scope="module", params=BROKERS)
def stood(request: pytest.FixtureRequest) -> Iterator[Stand]:
    with stand(request.param) as made:
        yield made


@pytest.fixture
def two(stood: Stand) -> Stand:
    """Two workers that run two tasks at a time, both alive."""
    stood.revive()
    return stood


def loaded(at: Stand, victim: EmbeddedWorker, gate: Gate, nodes: Sequence[str] = FOUR) -> Caller:
    """A run of some tasks, of which the victim runs two and has taken the others. The other workers stand by."""
    at.only(victim)
    run = at.submit(gate.group(nodes))
    caller = Caller(run)
    gate.wait(2)
    at.hold(victim, run, len(nodes), running=2)
    at.only(*at.workers)
    return caller


@pytest.mark.parametrize("leads", [True, False], ids=["the leader", "a follower"])
def test_what_a_killed_worker_held_runs_elsewhere(two: Stand, tmp_path: Path, leads: bool) -> None:
    gate, leader = Gate(tmp_path), two.leader()
    [other] = [worker for worker in two.workers if worker is not leader]
    victim, heir = (leader, other) if leads else (other, leader)
    caller = loaded(two, victim, gate)
    killed = time.monotonic()
    victim.kill()
    two.hold(heir, caller.run, 4, running=2)
    taken = time.monotonic() - killed
    gate.open()
    assert caller.returns() is RunStatus.SUCCEEDED
    right_result(caller.run, FOUR)
    assert taken < WORST, f"after {taken:.1f} s the four tasks were with the other worker"
    lost = events(caller.run, "node_lost")
    assert len(lost) == 2
    assert all(f"worker {victim.name.partition('@')[0]}@" in record["reason"] for record in lost)


def test_a_worker_that_is_started_again_at_once_takes_over_from_itself(two: Stand, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    victim, other = two.workers
    caller = loaded(two, victim, gate)
    two.only(victim)
    victim.kill()
    victim.start()
    victim.wait_ready()
    two.hold(victim, caller.run, 4, running=2)
    assert two.lease(other) is not None
    gate.open()
    assert caller.returns() is RunStatus.SUCCEEDED
    right_result(caller.run, FOUR)
    assert len(events(caller.run, "node_lost")) == 2


def test_a_worker_that_hangs_is_replaced_and_changes_nothing_when_it_goes_on(two: Stand, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    victim, heir = two.workers
    caller = loaded(two, victim, gate)
    first = {begun.node for begun in gate.begun()}
    two.only(heir)  # RabbitMQ goes on to hand messages to a consumer that hangs
    suspend(victim)
    two.hold(heir, caller.run, 4, running=2)
    resume(victim)
    zombies = [begun.pid for begun in gate.begun(attempt=1)]
    wait_until(lambda: not any(is_alive(pid) for pid in zombies), description=f"the zombies {zombies} to be ended")
    wait_until(lambda: two.lease(victim), description="the worker to have a lease again")
    gate.open()
    assert caller.returns() is RunStatus.SUCCEEDED
    right_result(caller.run, FOUR)
    assert first <= {str(record["node"]) for record in events(caller.run, "node_lost")}


def test_what_zombies_bring_counts_for_nothing_while_their_group_is_open(two: Stand, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    victim, heir = two.workers
    nodes = [*FOUR, "e"]
    caller = loaded(two, victim, gate, nodes)
    run = caller.run
    first = [begun.node for begun in gate.begun()]
    two.only(heir)
    suspend(victim)
    gate.open(*first)
    for node in first:
        wait_for(run, "node_succeeded", node, timeout=20)
    resume(victim)  # its two processes see the gate open, and end with results of their own
    wait_until(
        lambda: (lease := two.lease(victim)) and not any(item.run.id == run.id for item in lease.held),
        timeout=20,
        description="the worker to be back and to have let go of the run",
    )
    assert run.status is RunStatus.RUNNING
    assert not events(run, "group_succeeded"), "their ends do not count for the chord"
    gate.open()
    assert caller.returns() is RunStatus.SUCCEEDED
    right_result(run, nodes)
    assert all(run.result(node) == f"{node}-2" for node in first)


def test_where_no_watch_reports_a_death_the_lease_tells_of_it(tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    with stand(death_watch=False) as two:
        victim, heir = two.workers
        caller = loaded(two, victim, gate)
        killed = time.monotonic()
        victim.kill()
        two.hold(heir, caller.run, 4, running=2)
        taken = time.monotonic() - killed
        gate.open()
        assert caller.returns() is RunStatus.SUCCEEDED
        right_result(caller.run, FOUR)
        assert all("died or hangs" in record["reason"] for record in events(caller.run, "node_lost"))
    assert taken < WORST + 1, f"after {taken:.1f} s the four tasks were with the other worker"
