"""A process of a worker's pool dies, or its main process alone: what it ran runs again, or fails, and counts once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from graflow_celery import AtLeastNGroupPolicy, ParallelGroupError, RunStatus
from graflow_celery.errors import WorkerLostError
from graflow_celery.testing import wait_until
from tests.fault.stand import Caller, Gate, Stand, audit, events, kill_pid, right_result, stand, wait_for
from tests.processes import is_alive

pytestmark = pytest.mark.workers


@pytest.fixture(scope="module")
def stood() -> Iterator[Stand]:
    with stand(workers=1, concurrency=4) as made:
        yield made


@pytest.fixture
def one(stood: Stand) -> Stand:
    """One worker that runs four tasks at a time."""
    stood.revive()
    return stood


def test_a_killed_child_is_replaced_within_a_second_or_so(one: Stand, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    run = one.submit(gate.group(["a", "b"]))
    gate.wait(2)
    [victim] = gate.begun("a")
    kill_pid(victim.pid)
    lost = wait_for(run, "node_lost", "a")
    again = wait_for(run, "node_started", "a", count=2)
    gate.open()
    assert Caller(run).returns() is RunStatus.SUCCEEDED
    right_result(run, ["a", "b"])
    assert again - lost < 2
    assert f"its process {victim.pid} on {one.name(one.workers[0])} died" in events(run, "node_lost")[0]["reason"]


def test_a_task_that_loses_too_many_processes_fails_and_waits_in_between(one: Stand, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    run = one.submit(gate.group(["a", "b"]))
    for attempt in (1, 2, 3):
        [begun] = gate.wait(1, "a", attempt)
        kill_pid(begun.pid)
    gate.open("b")
    assert Caller(run).returns() is RunStatus.FAILED
    audit(run, unfinished=["b", "tally"] if not events(run, "node_succeeded", "b") else ["tally"])
    with pytest.raises(WorkerLostError, match=r"it has lost 3 processes, as many as max_losses=3 allows"):
        run.result("a")
    losses, starts = events(run, "node_lost", "a"), events(run, "node_started", "a")
    assert len(losses) == 2
    waits = [start["at"] - loss["at"] for loss, start in zip(losses, starts[1:], strict=True)]
    assert waits[0] < waits[1], "the first time it goes on at once, then later"
    assert waits[1] >= 0.4


def test_on_worker_loss_fail_ends_the_group_and_what_else_of_it_runs(one: Stand, tmp_path: Path) -> None:
    gate, innocent = Gate(tmp_path / "group"), Gate(tmp_path / "other")
    gate.path.mkdir()
    innocent.path.mkdir()
    other = one.submit(innocent.group(["c"]))
    [bystander] = innocent.wait(1)
    run = one.submit(gate.group(["a", "b"], on_worker_loss="fail"))
    caller = Caller(run)
    gate.wait(2)
    [victim], [rest] = gate.begun("a"), gate.begun("b")
    kill_pid(victim.pid)
    assert caller.returns(timeout=5) is RunStatus.FAILED
    audit(run, unfinished=["b", "tally"])
    with pytest.raises(ParallelGroupError, match=r"a: WorkerLostError: .*on_worker_loss='fail'"):
        run.result()
    with pytest.raises(WorkerLostError, match=rf"its process {victim.pid} on \S+@\S+ died while it ran"):
        run.result("a")
    wait_until(lambda: not is_alive(rest.pid), description="the other member's process to be ended")
    assert is_alive(bystander.pid)
    innocent.open()
    assert Caller(other).returns() is RunStatus.SUCCEEDED
    right_result(other, ["c"])


@pytest.mark.parametrize("policy", [AtLeastNGroupPolicy(1), "best_effort"], ids=["at_least_n", "best_effort"])
def test_a_group_that_can_still_be_met_goes_on(one: Stand, tmp_path: Path, policy: object) -> None:
    gate = Gate(tmp_path)
    run = one.submit(gate.group(["a", "b"], policy=policy, on_worker_loss="fail"))
    gate.wait(2)
    kill_pid(gate.begun("a")[0].pid)
    wait_for(run, "node_failed", "a")
    gate.open()
    assert Caller(run).returns() is RunStatus.SUCCEEDED
    audit(run)
    assert run.result() == {"b": 1}


def test_a_group_that_can_no_longer_be_met_is_closed(one: Stand, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    run = one.submit(gate.group(["a", "b", "c"], policy=AtLeastNGroupPolicy(2), on_worker_loss="fail"))
    gate.wait(3)
    kill_pid(gate.begun("a")[0].pid)
    wait_for(run, "node_failed", "a")
    assert run.status is RunStatus.RUNNING, "two of three can still be met"
    kill_pid(gate.begun("b")[0].pid)
    assert Caller(run).returns(timeout=5) is RunStatus.FAILED
    audit(run, unfinished=["c", "tally"])
    wait_until(lambda: not is_alive(gate.begun("c")[0].pid), description="the third member's process to be ended")


def test_a_main_process_that_dies_alone_takes_its_pool_along_and_its_task_runs_elsewhere(
    one: Stand, tmp_path: Path
) -> None:
    gate = Gate(tmp_path)
    main = one.workers[0].process.pid
    guard = psutil.Process(main).parent()
    caller = Caller(one.submit(gate.group(["a"])))  # which stands for election, as nobody else does
    [first] = gate.wait(1)
    guard.suspend()  # or it would end the pool itself
    try:
        kill_pid(main)
        wait_until(lambda: not is_alive(first.pid), description="the kernel to end the pool's process")
        wait_for(caller.run, "node_lost", "a")
    finally:
        guard.resume()
    gate.open()
    wait_until(lambda: not one.workers[0].process.running, description="the guard to see the end")
    one.revive()
    assert caller.returns() is RunStatus.SUCCEEDED
    right_result(caller.run, ["a"])
    assert caller.run.result("a") == "a-2"
