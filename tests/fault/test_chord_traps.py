"""The traps of Celery 5.7's chords, which we count ourselves: each harm cannot happen.

Where a fence keeps us out of one, the test is made without it too, and asserts the damage: it shows that the test
beside it can fail.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import redis

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
from graflow_celery.celery_backend.compiler import node_message
from graflow_celery.celery_backend.runtime import STOP_STALE, Runtime
from graflow_celery.core.commands import CloseBarrier
from graflow_celery.core.expr import Executable
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.failpoints import VARIABLE as FAILPOINTS
from graflow_celery.failpoints import Action, Point, arm, fired
from graflow_celery.ports import RunRef
from graflow_celery.redis_backend.client import connect
from graflow_celery.runs import client_runtime
from graflow_celery.testing import embedded_cluster, wait_until
from tests.fault.unfenced import VARIABLE as FENCES
from tests.fault.unfenced import Fence, taken_out

pytestmark = pytest.mark.workers

ONCE = RetryPolicy(max_retries=1, initial_interval=0.0)


@task(inject_context=True)
def gated(context: TaskExecutionContext, gate: str) -> int:
    """Says that it runs, and in which process; waits for the gate of its attempt; returns which attempt it is."""
    number = int(context.get_channel().atomic_add(f"{context.task_id}.attempts"))
    Path(gate, f"running-{context.task_id}-{number}-{os.getpid()}").touch()
    wait_until(
        lambda: Path(gate, "open").exists() or Path(gate, f"open-{context.task_id}-{number}").exists(),
        timeout=60,
        description="the gate to open",
    )
    return number


@task(inject_context=True, retry_policy=ONCE)
def flaky(context: TaskExecutionContext) -> str:
    if context.retry_count == 0:
        raise ValueError("the first time")
    return "the second time"


class Stage:
    """A worker whose fences can be taken out, and a gate for its tasks."""

    def __init__(self, cluster: EmbeddedCluster, directory: Path, gate: Path) -> None:
        self.cluster = cluster
        self.directory = directory
        self.gate = gate
        self.runtime: Runtime = client_runtime(cluster.settings)

    def fences(self, fenced: bool, *out: Fence) -> AbstractContextManager[None]:
        return nullcontext() if fenced else taken_out(self.directory, *out)

    def group(self, *members: Executable) -> Run:
        with workflow("traps") as wf:
            ParallelGroup(list(members), name="g", batch=1)
        return wf.submit(settings=self.cluster.settings)

    def gated(self, name: str) -> Executable:
        member: Executable = gated(task_id=name, gate=str(self.gate))
        return member

    def process_of(self, node: str, attempt: int = 1) -> int:
        """The process that runs an attempt, once it does."""
        pattern = f"running-{node}-{attempt}-*"
        found = wait_until(lambda: list(self.gate.glob(pattern)), timeout=30, description=f"{node} to run")
        return int(found[0].name.rpartition("-")[2])

    def open(self, name: str = "") -> None:
        (self.gate / (f"open-{name}" if name else "open")).touch()

    def task_id(self, run: Run, node: str, attempt: int = 1) -> str:
        return str(node_message(_reference(run), run.plan, node, attempt).options["task_id"])

    def log_says(self, text: str) -> bool:
        return text in self.cluster.workers[0].process.output()

    def is_idle(self) -> bool:
        """Whether the worker has nothing to do any more."""
        return not self.active() and not self.runtime.depth(self.cluster.settings.queue)

    def active(self) -> set[str]:
        """The ids of the tasks with which the worker has not done."""
        inspect = self.runtime.app.control.inspect(limit=1)
        asked = [wait_until(ask, description="an answer") for ask in (inspect.reserved, inspect.active)]
        return {request["id"] for answer in asked for requests in answer.values() for request in requests}


def _reference(run: Run) -> RunRef:
    return RunRef(run.id, run.graph_hash)


def _state(run: Run, node: str) -> str:
    report = run.nodes()[node]
    return "" if report is None else str(report.state)


def _count(run: Run, event: str, node: str) -> int:
    return sum(record["event"] == event and record.get("node") == node for record in run.events())


def _stays_open(run: Run, seconds: float) -> None:
    with pytest.raises(TimeoutError):
        wait_until(lambda: run.status.is_terminal, timeout=seconds, description="the run to end")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedCluster, Path]]:
    directory = tmp_path_factory.mktemp("fences")
    with embedded_cluster(
        concurrency=4,
        arguments=["--include", "tests.fault.unfenced"],
        env={FENCES: str(directory), FAILPOINTS: str(directory)},
    ) as started:
        yield started, directory


@pytest.fixture
def stage(cluster: tuple[EmbeddedCluster, Path], tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(*cluster, tmp_path)
    yield stage
    stage.open()
    wait_until(stage.is_idle, timeout=30, description="the worker to have nothing to do")


both = pytest.mark.parametrize("fenced", [True, False], ids=["fenced", "unfenced"])


def test_an_attempt_that_is_followed_by_another_is_no_part_of_the_chord(stage: Stage) -> None:
    """Celery counts by task id: the failed attempt and the next one would be two parts, and close a chord of two."""
    run = stage.group(stage.gated("slow"), flaky)
    stage.process_of("slow")
    wait_until(lambda: _state(run, "flaky") == "succeeded", timeout=30, description="the second attempt to end")
    assert _count(run, "node_started", "flaky") == 2
    assert (run.status, _count(run, "group_failed", "g")) == (RunStatus.RUNNING, 0)
    stage.open()
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert run.result() == {"slow": 1, "flaky": "the second time"}


@both
def test_two_attempts_that_both_return_are_one_part_of_the_chord(stage: Stage, fenced: bool) -> None:
    """Each has a message of its own, and a process of its own that brings a result."""
    with stage.fences(fenced, Fence.COMMIT):
        run = stage.group(stage.gated("twice"), stage.gated("slow"), stage.gated("slower"))
        for name in ("twice", "slow", "slower"):
            stage.process_of(name)
        _declare_lost(stage, run, "twice")
        stage.process_of("twice", 2)
        for number in (1, 2):
            stage.open(f"twice-{number}")
            attempt = stage.task_id(run, "twice", number)
            wait_until(lambda: attempt not in stage.active(), timeout=30, description="an attempt to end")  # noqa: B023
        stage.open("slow-1")
        wait_until(lambda: _state(run, "slow") == "succeeded", description="another member to end")
        if not fenced:  # the barrier was closed over a member that runs
            assert run.wait(timeout=30) is RunStatus.FAILED
            with pytest.raises(ParallelGroupError, match="slower"):
                run.result()
            return
    assert run.status is RunStatus.RUNNING
    stage.open()
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert run.result() == {"twice": 2, "slow": 1, "slower": 1}


@both
def test_a_member_that_was_revoked_with_terminate_does_not_break_the_chord(stage: Stage, fenced: bool) -> None:
    """Celery says REVOKED to its result backend, and nothing to the run."""
    with stage.fences(fenced, Fence.REQUEST, Fence.MONITOR):
        run = stage.group(stage.gated("revoked"), stage.gated("other"))
        stage.process_of("other")
        stage.process_of("revoked")
        stage.runtime.app.control.revoke(stage.task_id(run, "revoked"), terminate=True, signal="SIGKILL")
        if not fenced:
            _stands_still(stage, run)
            return
    wait_until(lambda: _state(run, "revoked") == "failed", description="the store to know")
    stage.open()
    assert run.wait(timeout=30) is RunStatus.FAILED
    with pytest.raises(ParallelGroupError, match=r"revoked: TaskCancelledError: .*Celery revoked it"):
        run.result()


@both
def test_a_member_whose_process_died_does_not_break_the_chord(stage: Stage, fenced: bool) -> None:
    """Celery says FAILURE to its result backend, or gives the message back, whose attempt runs as the store knows."""
    with stage.fences(fenced, Fence.REQUEST, Fence.MONITOR):
        run = stage.group(stage.gated("killed"), stage.gated("other"))
        stage.process_of("other")
        os.kill(stage.process_of("killed"), signal.SIGKILL)
        if not fenced:
            _stands_still(stage, run)
            return
    stage.process_of("killed", 2)
    stage.open()
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert run.result() == {"killed": 2, "other": 1}


@both
def test_a_member_past_its_hard_time_limit_does_not_break_the_chord(stage: Stage, fenced: bool) -> None:
    """Celery says FAILURE to its result backend, though the node is to be tried again."""
    limited = task("limited", inject_context=True, time_limit=3, retry_policy=ONCE)(gated.func)
    with stage.fences(fenced, Fence.REQUEST, Fence.MONITOR):
        run = stage.group(limited(task_id="limited", gate=str(stage.gate)), stage.gated("other"))
        stage.open("limited-2")
        stage.process_of("other")
        if not fenced:
            _stands_still(stage, run)
            return
    stage.process_of("limited", 2)
    stage.open()
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert run.result() == {"limited": 2, "other": 1}


def _stands_still(stage: Stage, run: Run) -> None:
    """The other member ends, and nobody knows that there will be no more."""
    stage.open("other-1")
    wait_until(lambda: _state(run, "other") == "succeeded", description="the other member to end")
    _stays_open(run, 1.0)
    run.cancel("enough was seen")


@pytest.mark.parametrize("point", [Point.NODE_COMMITTED, Point.NODE_FOLLOWED], ids=str)
def test_a_part_is_counted_when_it_is_committed(stage: Stage, point: Point) -> None:
    """Its process dies after the commit and before the message's end: nobody is needed who counts it later."""
    with stage.fences(False, Fence.MONITOR):
        arm(stage.directory, point, Action.KILL, "counted")
        run = stage.group(stage.gated("counted"), stage.gated("other"))
        stage.process_of("other")
        stage.open("counted-1")
        wait_until(lambda: fired(stage.directory, point), timeout=30, description="its process to die")
        stage.open()
        # Not by run.wait(): a client that waits may be the monitor, of which none is to be needed.
        wait_until(lambda: run.status.is_terminal, timeout=30, description="the run to end")
    _ended_once(stage, run)


@both
def test_the_last_part_whose_process_dies_closes_its_barrier_all_the_same(stage: Stage, fenced: bool) -> None:
    """It was to close it at once; that it is to be closed was committed, and the monitor knows."""
    with stage.fences(fenced, Fence.MONITOR):
        arm(stage.directory, Point.BARRIER_RECEIVED, Action.KILL, "g")
        run = stage.group(stage.gated("counted"), stage.gated("other"))
        stage.open()
        wait_until(lambda: fired(stage.directory, Point.BARRIER_RECEIVED), timeout=30, description="its process to die")
        if not fenced:
            _stays_open(run, stage.cluster.settings.dispatch_grace + 2.0)
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    _ended_once(stage, run)


def _ended_once(stage: Stage, run: Run) -> None:
    assert run.result() == {"counted": 1, "other": 1}
    assert [_count(run, "node_started", node) for node in ("counted", "other")] == [1, 1]
    assert _count(run, "group_succeeded", "g") == 1
    for path in stage.directory.glob("fired-*"):
        path.unlink()


@both
def test_an_attempt_whose_id_was_revoked_is_followed_by_one_with_another_id(stage: Stage, fenced: bool) -> None:
    """A worker remembers for hours which ids were revoked, and drops their messages."""
    with stage.fences(fenced, Fence.NEW_ID):
        run = stage.group(stage.gated("again"), stage.gated("other"))
        process = stage.process_of("again")
        stage.runtime.app.control.revoke(stage.task_id(run, "again"))
        wait_until(lambda: stage.log_says(f"Tasks flagged as revoked: {run.id}"), description="the worker to know")
        os.kill(process, signal.SIGKILL)
        if fenced:
            stage.process_of("again", 2)
        else:
            wait_until(lambda: _state(run, "again") == "failed", timeout=30, description="its message to be dropped")
            assert stage.log_says(f"Discarding revoked task: graflow.node[{run.id}.1.")
    stage.open()
    assert run.wait(timeout=30) is (RunStatus.SUCCEEDED if fenced else RunStatus.FAILED)


@both
def test_a_command_to_stop_what_is_stale_leaves_the_others_alone(stage: Stage, fenced: bool) -> None:
    """``revoke(terminate=True)`` signals a process, whatever it runs by now."""
    with stage.fences(fenced, Fence.WANTED):
        run = stage.group(stage.gated("stale"), stage.gated("innocent"))
        bystander = stage.group(stage.gated("bystander"), flaky)
        stale, innocent = stage.process_of("stale"), stage.process_of("innocent")
        stage.process_of("bystander")
        assert _ask_to_stop(stage, run) == ([] if fenced else _ids(stage, run, "innocent", "stale"))
        if not fenced:
            wait_until(lambda: _state(run, "innocent") == "failed", description="an innocent attempt to be ended")
            return
    _declare_lost(stage, run, "stale")
    second = stage.process_of("stale", 2)
    assert _ask_to_stop(stage, run) == _ids(stage, run, "stale")
    wait_until(lambda: not psutil.pid_exists(stale), description="the stale attempt's process to end")
    assert psutil.pid_exists(second)
    assert psutil.pid_exists(innocent)
    assert _ask_to_stop(stage, run) == [], "what was stale has gone, and its process's number means nothing"
    stage.open()
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert bystander.wait(timeout=30) is RunStatus.SUCCEEDED
    assert run.result() == {"stale": 2, "innocent": 1}
    assert [_count(run, "node_started", node) for node in ("stale", "innocent")] == [2, 1]
    assert _count(bystander, "node_started", "bystander") == 1


def _ask_to_stop(stage: Stage, run: Run) -> list[str]:
    """What the worker says that it ended."""
    arguments = {"runs": [run.id]}
    [reply] = stage.runtime.app.control.broadcast(STOP_STALE, arguments=arguments, reply=True, timeout=10.0, limit=1)
    return sorted(next(iter(reply.values()))["ended"])


def _ids(stage: Stage, run: Run, *nodes: str) -> list[str]:
    return sorted(stage.task_id(run, node) for node in nodes)


def _declare_lost(stage: Stage, run: Run, node: str) -> None:
    """Does what a monitor does that takes the worker for dead; its attempt goes on."""
    report = run.nodes()[node]
    assert report is not None
    assert not stage.runtime.losses.lost(_reference(run), run.plan, node, report, "taken for dead").stale


@both
def test_a_barrier_that_is_sent_again_closes_its_group_once(stage: Stage, fenced: bool) -> None:
    """Celery's lease on a chord's body runs out after seconds, and the monitor sends what seems to be left undone."""
    with workflow("traps") as wf:
        ParallelGroup([flaky, flaky(task_id="two")], name="g") >> gated(task_id="after", gate=str(stage.gate))
    with stage.fences(fenced, Fence.COMMIT):
        run = wf.submit(settings=stage.cluster.settings)
        stage.process_of("after")
        for _ in range(2):
            stage.runtime.engine.executor.send(_reference(run), run.plan, [CloseBarrier("g")])
        received = f"graflow.barrier[{run.id}.b."
        log = stage.cluster.workers[0].process
        wait_until(lambda: log.output().count(received) >= 2, timeout=30, description="them to arrive")
        body = f"{run.id}.b."
        wait_until(
            lambda: not any(message.startswith(body) for message in stage.active()),
            timeout=30,
            description="them to be carried out",
        )
        stage.open("after-1")
        wait_until(stage.is_idle, timeout=30, description="the worker to have nothing to do")
    assert _count(run, "group_succeeded", "g") == 1 if fenced else _count(run, "group_succeeded", "g") > 1
    if fenced:
        assert run.wait(timeout=30) is RunStatus.SUCCEEDED
        assert run.result() == 1
        assert _count(run, "node_started", "after") == 1


@both
def test_a_group_that_cannot_be_met_any_more_fails_at_once(stage: Stage, fenced: bool) -> None:
    """A chord says nothing before all of its parts are there."""
    fragile = task("fragile", inject_context=True, on_worker_loss="fail")(gated.func)
    with stage.fences(fenced, Fence.GIVE_UP):
        run = stage.group(fragile(task_id="fragile", gate=str(stage.gate)), stage.gated("endless"))
        endless = stage.process_of("endless")
        os.kill(stage.process_of("fragile"), signal.SIGKILL)
        wait_until(lambda: _state(run, "fragile") == "failed", description="its process to be missed")
        if not fenced:
            _stays_open(run, 2.0)
            stage.open()
    assert run.wait(timeout=3 if fenced else 30) is RunStatus.FAILED
    with pytest.raises(ParallelGroupError, match=r"fragile: WorkerLostError: .*on_worker_loss='fail'"):
        run.result()
    if fenced:
        wait_until(lambda: not psutil.pid_exists(endless), description="the other member's process to be ended")


@both
def test_the_outcome_of_an_attempt_that_was_replaced_changes_nothing(stage: Stage, fenced: bool) -> None:
    """It comes back when nobody waits for it any more, with another result."""
    with stage.fences(fenced, Fence.COMMIT):
        run = stage.group(stage.gated("zombie"), stage.gated("other"))
        stage.process_of("other")
        stage.process_of("zombie")
        _declare_lost(stage, run, "zombie")
        stage.process_of("zombie", 2)
        stage.open("zombie-2")
        wait_until(lambda: _state(run, "zombie") == "succeeded", description="the attempt that took over to end")
        assert run.result("zombie") == 2
        stage.open("zombie-1")
        first = stage.task_id(run, "zombie")
        wait_until(lambda: first not in stage.active(), description="the zombie to end")
        assert run.result("zombie") == (2 if fenced else 1)
        assert _count(run, "node_succeeded", "zombie") == (1 if fenced else 2)
    stage.open()
    run.wait(timeout=30)
    if fenced:
        assert run.result() == {"zombie": 2, "other": 1}


def test_a_read_that_blocks_for_longer_than_redis_pys_own_timeout_returns(stage: Stage) -> None:
    """redis-py gives a connection five seconds to answer, unless it is told otherwise."""
    url, seconds = stage.cluster.settings.redis_url, 5.5
    plain, ours = redis.Redis.from_url(url, retry=None), connect(url, block=seconds)
    failures: list[Exception] = []

    def read_plainly() -> None:
        try:
            plain.xread({"nothing": "$"}, block=int(seconds * 1000))
        except redis.TimeoutError as error:
            failures.append(error)

    thread = threading.Thread(target=read_plainly)
    thread.start()
    began = time.monotonic()
    assert not ours.xread({"nothing": "$"}, block=int(seconds * 1000))
    assert time.monotonic() - began >= seconds
    thread.join()
    assert failures, "redis-py's default has changed"
    for client in (plain, ours):
        client.close()
