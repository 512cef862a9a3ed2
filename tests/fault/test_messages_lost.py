"""Messages are lost, revoked, or delivered twice: each node still ends, once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from graflow_celery import Run, RunStatus
from graflow_celery.celery_backend.compiler import node_message
from graflow_celery.errors import ParallelGroupError, TaskCancelledError
from graflow_celery.ports import RunRef
from graflow_celery.testing import wait_until
from tests.fault.stand import BROKERS, FAST, Caller, Gate, Stand, audit, events, right_result, stand, wait_for

pytestmark = pytest.mark.workers

FOUR = ["a", "b", "c", "d"]


@pytest.fixture(scope="module", params=BROKERS)
def stood(request: pytest.FixtureRequest) -> Iterator[Stand]:
    with stand(request.param, **FAST) as made:
        yield made


@pytest.fixture
def two(stood: Stand) -> Stand:
    stood.revive()
    return stood


def task_id(run: Run, node: str, attempt: int = 1) -> str:
    """Celery's id of the message."""
    return str(node_message(RunRef(run.id, run.graph_hash), run.plan, node, attempt).options["task_id"])


def came_again(at: Stand, run: Run, node: str) -> bool:
    """Whether the message of the first attempt was received more than once."""
    return sum(worker.process.output().count(f"[{task_id(run, node)}] received") for worker in at.workers) > 1


def throw_away(at: Stand, *, delete: bool) -> None:
    """What ``celery purge`` does to the queue, or what an operator does who deletes it."""
    with at.runtime.app.connection_for_write() as connection:
        channel = connection.default_channel
        if delete:
            channel.queue_delete(at.settings.queue)
        else:
            assert channel.queue_purge(at.settings.queue) == 4


@pytest.mark.parametrize("delete", [False, True], ids=["purged", "deleted"])
def test_messages_that_were_thrown_away_are_sent_again(two: Stand, tmp_path: Path, delete: bool) -> None:
    if delete and two.settings.broker.startswith("redis"):
        pytest.skip("in Redis a queue without messages is not there")
    gate = Gate(tmp_path)
    gate.open()
    two.only()
    run = two.submit(gate.group(FOUR))
    # A worker that is told to take no more hands back what it was just given.
    wait_until(lambda: two.runtime.depth(two.settings.queue) == len(FOUR), description="the messages to wait")
    throw_away(two, delete=delete)
    two.only(*two.workers)
    assert Caller(run).returns(timeout=40) is RunStatus.SUCCEEDED
    right_result(run, FOUR)
    returned = events(run, "node_returned")
    assert {record["node"] for record in returned} == set(FOUR)
    assert all("no live worker has it" in record["reason"] for record in returned)


def test_a_worker_that_dies_before_a_beat_tells_what_it_holds_loses_nothing(two: Stand, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    victim, heir = two.workers
    two.only(victim)
    caller = Caller(two.submit(gate.group(FOUR)))
    gate.wait(1)
    victim.kill()
    two.take(heir)
    gate.open()
    assert caller.returns(timeout=40) is RunStatus.SUCCEEDED
    right_result(caller.run, FOUR)


@pytest.mark.parametrize("runs", [False, True], ids=["before it ran", "while it ran"])
def test_a_node_whose_message_an_operator_revokes_fails(two: Stand, tmp_path: Path, runs: bool) -> None:
    gate = Gate(tmp_path)
    worker = two.workers[0]
    two.only(worker)
    run = two.submit(gate.group(["a", "b", "c"]))
    caller = Caller(run)
    gate.wait(2)
    two.hold(worker, run, 3, running=2)
    [waiting] = {"a", "b", "c"} - {begun.node for begun in gate.begun()}
    victim = gate.begun()[0].node if runs else waiting
    two.control.revoke(task_id(run, victim), destination=[two.name(worker)], terminate=runs, reply=True, timeout=5)
    gate.open()
    assert caller.returns() is RunStatus.FAILED
    audit(run, unfinished=["tally"])
    with pytest.raises(TaskCancelledError, match="Celery revoked it"):
        run.result(victim)
    with pytest.raises(ParallelGroupError, match=rf"{victim}: TaskCancelledError"):
        run.result()


def restore(at: Stand) -> None:
    """What any consumer does now and then to messages that are older than its visibility timeout: here 1 ms."""
    with at.runtime.app.connection_for_write() as connection:
        channel = connection.default_channel
        channel.visibility_timeout = 0.001
        channel.qos.restore_visible(interval=1)


def test_tasks_run_once_although_the_visibility_timeout_is_over(two: Stand, tmp_path: Path) -> None:
    if not two.settings.broker.startswith("redis"):
        pytest.skip("only Redis has a visibility timeout")
    gate = Gate(tmp_path)
    worker = two.workers[0]
    two.only(worker)
    run = two.submit(gate.group(FOUR))
    gate.wait(2)
    two.hold(worker, run, 4, running=2)
    two.only(*two.workers)
    restore(two)
    for begun in gate.begun():
        wait_until(partial(came_again, two, run, begun.node), description=f"{begun.node} to come a second time")
    gate.open()
    assert Caller(run).returns() is RunStatus.SUCCEEDED
    right_result(run, FOUR)
    assert len(gate.begun()) == 4
    assert not events(run, "node_lost")


def test_a_task_runs_once_although_its_message_comes_again_from_a_broken_connection(two: Stand, tmp_path: Path) -> None:
    if two.settings.broker.startswith("redis"):
        pytest.skip("a Redis broker does not see who is connected")
    gate = Gate(tmp_path)
    worker = two.workers[0]
    two.only(worker)
    run = two.submit(gate.group(["a"]))
    gate.wait(1)
    connections = psutil.Process(worker.process.pid).net_connections("tcp")
    cut = [
        subprocess.run(["ss", "-K", "sport", "=", str(item.laddr.port)], capture_output=True, check=False)
        for item in connections
        if item.raddr
    ]
    if not any(str(item.laddr.port).encode() in done.stdout for item, done in zip(connections, cut, strict=False)):
        pytest.skip("this kernel does not let `ss -K` close sockets")
    wait_until(partial(came_again, two, run, "a"), timeout=20, description="the message to come again")
    gate.open()
    assert Caller(run).returns() is RunStatus.SUCCEEDED
    right_result(run, ["a"])
    assert len(gate.begun()) == 1
    wait_for(run, "node_succeeded", "a")
