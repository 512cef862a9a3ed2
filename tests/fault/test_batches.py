"""Members that share a message, and nodes that go on in one: each still counts once, waits for nobody, and is replaced
alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from graflow_celery import (
    ParallelGroup,
    ParallelGroupError,
    RetryPolicy,
    Run,
    RunStatus,
    TaskExecutionContext,
    task,
    workflow,
)
from graflow_celery.core.task import TaskWrapper
from graflow_celery.errors import WorkerLostError
from graflow_celery.testing import wait_until
from graflow_celery.workflows import WorkflowContext
from tests.fault.bodies import note
from tests.fault.stand import Gate, Stand, events, kill_pid, stand, wait_for

pytestmark = pytest.mark.workers

#: Members of one message.
SIZE = 50
#: Seconds within which something is to happen at once, on a busy machine.
SOON = 5.0


def quick(context: TaskExecutionContext, gate: str) -> str:
    """Notes that it ran, and takes next to no time."""
    note(context, gate)
    return context.task_id


def poisonous(context: TaskExecutionContext, gate: str) -> str:
    """Takes its process along, always."""
    note(context, gate)
    os.kill(os.getpid(), signal.SIGKILL)
    return "never"


def hesitant(context: TaskExecutionContext, gate: str) -> str:
    """Fails the first time."""
    note(context, gate)
    if context.retry_count == 0:
        raise ValueError("the first time")
    return f"{context.task_id}-{context.attempt}"


@pytest.fixture(scope="module")
def stood() -> Iterator[Stand]:
    with stand(workers=2, concurrency=2) as made:
        yield made


@pytest.fixture
def two(stood: Stand) -> Stand:
    """Two workers that run two tasks at a time each."""
    stood.revive()
    return stood


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def names(*, without: int = -1) -> list[str]:
    return [f"m{number}" for number in range(SIZE) if number != without]


def batch(gate: Gate, number: int, odd: TaskWrapper) -> WorkflowContext:
    """A group of which all members travel in one message: quick ones, and ``odd`` as the one of a number."""
    members = [gate.task(name, quick, batch=SIZE) for name in names()]
    members[number] = odd
    with workflow("batch") as wf:
        ParallelGroup(members, name="members")
    return wf


def ran_once(run: Run, gate: Gate, *nodes: str) -> None:
    """The code of each of these was called once, and its end counts once. Leave may have been given back unused."""
    assert sorted(begun.node for begun in gate.begun() if begun.node in nodes) == sorted(nodes)
    counted_once(run, *nodes)


def counted_once(run: Run, *nodes: str) -> None:
    """Each of these has succeeded once."""
    ended = [str(event["node"]) for event in events(run, "node_succeeded")]
    assert sorted(node for node in ended if node in nodes) == sorted(nodes)


def results(**others: str) -> dict[str, str]:
    return {name: others.get(name, name) for name in names()}


def test_all_members_of_a_batch_run_in_one_process(two: Stand, gate: Gate) -> None:
    """Unless that process has to load itself first: then others do the rest meanwhile."""
    processes: list[int] = []
    while 1 not in processes:
        assert len(processes) < 8, f"batches ran in so many processes: {processes}"
        for path in gate.path.iterdir():
            path.unlink()
        run = two.submit(batch(gate, 0, gate.task("m0", quick, batch=SIZE)))
        assert run.wait(timeout=30) is RunStatus.SUCCEEDED
        assert run.result() == results()
        ran_once(run, gate, *names())
        processes.append(len({begun.pid for begun in gate.begun()}))


def test_a_child_that_is_killed_in_a_batch_costs_the_running_member_alone(two: Stand, gate: Gate) -> None:
    run = two.submit(batch(gate, 25, gate.task("m25", batch=SIZE)))
    [victim] = gate.wait(1, "m25")
    wait_for(run, "node_succeeded", count=SIZE - 1)
    killed = time.monotonic()
    kill_pid(victim.pid)
    [again] = gate.wait(1, "m25", 2)
    gate.open()
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert again.at - killed < SOON
    assert run.result() == results(m25="m25-2")
    ran_once(run, gate, *names(without=25))
    assert [event["node"] for event in events(run, "node_lost")] == ["m25"]
    assert _losses(run) == {"m25": 1}


def test_a_child_that_is_killed_before_its_neighbours_are_relieved_runs_no_committed_one_again(
    two: Stand, gate: Gate
) -> None:
    """At once, while what ran before it and what comes after it are with its process."""
    run = two.submit(batch(gate, 25, gate.task("m25", batch=SIZE)))
    [victim] = gate.wait(1, "m25")
    kill_pid(victim.pid)
    committed = [str(event["node"]) for event in events(run, "node_succeeded")]
    wait_for(run, "node_lost", "m25")
    wait_until(
        lambda: len({event["node"] for event in events(run, "node_succeeded")}) == SIZE - 1,
        timeout=SOON,
        description="the others to run elsewhere",
    )
    gate.open()
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    ran_once(run, gate, *committed)
    counted_once(run, *names())


def test_a_worker_that_is_killed_in_a_batch_has_its_members_run_elsewhere(two: Stand, gate: Gate) -> None:
    victim, other = two.workers
    two.only(victim)
    run = two.submit(batch(gate, 25, gate.task("m25", batch=SIZE)))
    gate.wait(1, "m25")
    two.take(other)
    killed = time.monotonic()
    victim.kill()
    [again] = gate.wait(1, "m25", 2)
    gate.open()
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert again.at - killed < SOON + two.settings.heartbeat_timeout
    assert run.result("m25") == "m25-2"
    counted_once(run, *names())
    assert set(_losses(run)) >= {"m25"}


def test_a_slow_member_keeps_no_neighbour_waiting(two: Stand, gate: Gate) -> None:
    run = two.submit(batch(gate, 10, gate.task("m10", batch=SIZE)))
    [slow] = gate.wait(1, "m10")
    wait_until(
        lambda: len(events(run, "node_succeeded")) == SIZE - 1, timeout=SOON, description="all others to be committed"
    )
    after = [begun for begun in gate.begun() if int(begun.node[1:]) > 10]
    assert {begun.pid for begun in after}.isdisjoint({slow.pid}), "another process took them over"
    [report] = [report for name, report in run.nodes().items() if name == "m10"]
    assert report is not None
    assert report.state == "running"
    gate.open()
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    ran_once(run, gate, *names())
    began = events(run, "node_started", "m10")[0]["at"]
    waited = max(event["at"] for event in events(run, "node_succeeded") if event["node"] != "m10") - began
    assert waited < 2.0


def test_a_poisonous_member_of_a_batch_fails_alone(two: Stand, gate: Gate) -> None:
    run = two.submit(batch(gate, 25, gate.task("m25", poisonous, batch=SIZE)))
    assert run.wait(timeout=40) is RunStatus.FAILED
    with pytest.raises(ParallelGroupError, match=r"m25: WorkerLostError: .*it has lost 3 processes") as raised:
        run.result()
    assert [member for member, _ in raised.value.failed_tasks] == ["m25"]
    with pytest.raises(WorkerLostError, match="as many as max_losses=3 allows"):
        run.result("m25")
    assert sorted(str(event["node"]) for event in events(run, "node_succeeded")) == sorted(names(without=25))
    assert _losses(run) == {"m25": 3}


def test_a_member_that_fails_in_a_batch_is_tried_again_alone(two: Stand, gate: Gate) -> None:
    policy = RetryPolicy(max_retries=1, initial_interval=0.0)
    run = two.submit(batch(gate, 25, gate.task("m25", hesitant, batch=SIZE, retry=policy)))
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert run.result() == results(m25="m25-2")
    ran_once(run, gate, *names(without=25))
    assert len(events(run, "node_retried", "m25")) == 1


def test_a_batch_that_is_revoked_fails_what_had_not_ended(two: Stand, gate: Gate) -> None:
    """``revoke(terminate=True)`` ends its process, and says so of what it had then."""
    run = two.submit(batch(gate, 25, gate.task("m25", batch=SIZE)))
    gate.wait(1, "m25")
    active = two.control.inspect(timeout=5).active()
    [message] = {item["id"] for found in active.values() for item in found if item["id"].startswith(run.id)}
    two.control.revoke(message, terminate=True, signal="SIGKILL")
    assert run.wait(timeout=30) is RunStatus.FAILED
    with pytest.raises(ParallelGroupError, match=r"m25: TaskCancelledError: .*Celery revoked it"):
        run.result()
    assert {f"m{number}" for number in range(25)} <= {str(event["node"]) for event in events(run, "node_succeeded")}


def test_a_cancel_in_a_batch_lets_nothing_begin_any_more(two: Stand, gate: Gate) -> None:
    run = two.submit(batch(gate, 25, gate.task("m25", batch=SIZE)))
    gate.wait(1, "m25")
    assert run.cancel("enough was seen")
    at = time.monotonic()
    gate.open()
    assert run.wait(timeout=10) is RunStatus.CANCELLED
    wait_until(
        lambda: (
            not any(
                item.run.id == run.id for worker in two.workers if (lease := two.lease(worker)) for item in lease.held
            )
        ),
        timeout=SOON,
        description="the workers to let go of it",
    )
    assert not [begun for begun in gate.begun() if begun.at > at]


def _losses(run: Run) -> dict[str, int]:
    """How many processes each node lost that lost any."""
    return {name: report.losses for name, report in run.nodes().items() if report is not None and report.losses}


# ------------------------------------------------------------------------------------ a long chain in one message


@task(inject_context=True)
def link(context: TaskExecutionContext, gate: str) -> int:
    note(context, gate)
    end = time.monotonic() + 0.05
    while time.monotonic() < end:
        pass
    return os.getpid()


def test_a_worker_that_shuts_down_warmly_leaves_a_long_chain_to_another(two: Stand, gate: Gate) -> None:
    victim, other = two.workers
    two.only(victim)
    links = [link(task_id=f"l{number}", gate=str(gate.path)) for number in range(60)]
    with workflow("chain") as wf:
        chain = links[0]
        for following in links[1:]:
            chain = chain >> following
    run = two.submit(wf)
    gate.wait(5)
    two.take(other)
    at = time.monotonic()
    victim.kill(signal.SIGTERM)
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    ran_once(run, gate, *(f"l{number}" for number in range(60)))
    processes = {begun.pid for begun in gate.begun() if begun.at < at}
    assert max(begun.at for begun in gate.begun() if begun.pid in processes) - at < 1.5, "it saw the chain through"
    assert len({begun.pid for begun in gate.begun()} - processes) > 0
    assert victim.process.wait(20) is not None
