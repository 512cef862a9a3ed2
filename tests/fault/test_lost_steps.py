"""A process dies between two steps: what it left undone is done by somebody else, once."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from graflow_celery import (
    ParallelGroup,
    ParallelGroupError,
    Run,
    RunStatus,
    Settings,
    TaskExecutionContext,
    task,
    workflow,
)
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.codec.manifest import pack_graph
from graflow_celery.core.events import NodeSucceeded, RunStarted
from graflow_celery.core.scheduler import Scheduler
from graflow_celery.core.task import TaskWrapper
from graflow_celery.distributed import new_run_id
from graflow_celery.errors import GraphCompilationError, TimeLimitError
from graflow_celery.ports import Outcome
from graflow_celery.runs import client_runtime
from graflow_celery.testing import wait_until
from graflow_celery.workflows import WorkflowContext

pytestmark = pytest.mark.workers


@task
def first() -> int:
    return 1


@task
def second(first: int) -> int:
    return first + 1


@task(inject_context=True)
def gated(context: TaskExecutionContext, gate: str) -> str:
    """Notes its process, then waits for the gate to open."""
    Path(gate, f"pid-{context.task_id}-{os.getpid()}").touch()
    wait_until(Path(gate, "open").exists, timeout=60, description="the gate to open")
    return context.task_id


def committed_but_not_sent(wf: WorkflowContext, settings: Settings) -> tuple[Runtime, Run]:
    """A run whose client died after the commit of its start and before it sent anything."""
    runtime = client_runtime(settings)
    plan = wf.plan()
    wrappers = {name: node for name, node in wf.graph.nodes.items() if isinstance(node, TaskWrapper)}
    packed = pack_graph(plan, wrappers, runtime.codec)
    runtime.content.put({name: blob() for name, blob in packed.missing(packed.names).items()})
    run = runtime.refer(new_run_id(), packed.hash)
    runtime.store.create(run, Scheduler().decide(plan, RunStarted()), {"workflow": wf.name, "tasks": 2})
    return runtime, Run(runtime, run)


def test_what_a_client_committed_and_did_not_send_is_sent_by_the_monitor(graflow_settings: Settings) -> None:
    with workflow("died before sending") as wf:
        first >> second
    _, run = committed_but_not_sent(wf, graflow_settings)
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert run.result() == 2


def test_what_a_worker_committed_and_did_not_send_is_sent_by_the_monitor(graflow_settings: Settings) -> None:
    with workflow("died after the commit") as wf:
        first >> second
    runtime, run = committed_but_not_sent(wf, graflow_settings)
    reference = runtime.refer(run.id, run.graph_hash)
    committed = runtime.store.commit(
        reference, Scheduler().decide(run.plan, NodeSucceeded("first", 1)), Outcome(value=40, worker="dead")
    )
    assert not committed.stale
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert run.result() == 41, "the outcome that was committed counts, not that of another run of the node"


def test_a_killed_pool_child_loses_no_task(graflow_settings: Settings, tmp_path: Path) -> None:
    with workflow("child killed") as wf:
        members = [gated(task_id=f"member{index}", gate=str(tmp_path)) for index in range(2)]
        ParallelGroup(members, name="members", batch=1)
    run = wf.submit(settings=graflow_settings)
    wait_until(lambda: len(list(tmp_path.glob("pid-*"))) == 2, description="both members to run", timeout=30)
    victim = next(tmp_path.glob("pid-member0-*"))
    os.kill(int(victim.name.rpartition("-")[2]), signal.SIGKILL)
    wait_until(lambda: len(list(tmp_path.glob("pid-member0-*"))) == 2, description="member0 to run again", timeout=30)
    (tmp_path / "open").touch()
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert run.result() == {"member0": "member0", "member1": "member1"}


def test_a_cancelled_run_starts_nothing_more(graflow_settings: Settings, tmp_path: Path) -> None:
    with workflow("cancelled") as wf:
        gated(task_id="running", gate=str(tmp_path)) >> first
    run = wf.submit(settings=graflow_settings)
    wait_until(lambda: list(tmp_path.glob("pid-*")), description="the first node to run", timeout=30)
    assert run.cancel("enough")
    assert not run.cancel("twice")
    (tmp_path / "open").touch()
    assert run.wait(timeout=10) is RunStatus.CANCELLED
    assert run.reason == "enough"
    assert run.nodes()["first"] is None


def test_submitting_one_run_id_twice_gives_the_run_that_is_there(graflow_settings: Settings) -> None:
    with workflow("idempotent") as wf:
        first >> second
    run_id = new_run_id()
    runs = [wf.submit(run_id=run_id, settings=graflow_settings) for _ in range(2)]
    assert [run.wait(timeout=30) for run in runs] == [RunStatus.SUCCEEDED] * 2
    started = [record for record in runs[0].events() if record["event"] == "node_started"]
    assert len(started) == 2


def test_no_key_of_a_run_is_left_without_a_time_to_live(graflow_settings: Settings) -> None:
    with workflow("expiring") as wf:
        (first | first(task_id="other")) >> second(task_id="after", first=2)
    run = wf.submit(initial_channel={"k": [1]}, settings=graflow_settings)
    run.wait(timeout=30)
    client = client_runtime(graflow_settings).client
    prefix = graflow_settings.key_prefix
    permanent = {f"{prefix}:runs", f"{prefix}:active", f"{prefix}:workers"}
    for key in (name.decode() for name in client.scan_iter(f"{prefix}:*")):
        assert key in permanent or client.ttl(key) > 0, key


def test_no_key_of_a_run_that_goes_on_is_left_without_a_time_to_live(
    graflow_settings: Settings, tmp_path: Path
) -> None:
    with workflow("expiring") as wf:
        group = ParallelGroup([first, gated(task_id="waits", gate=str(tmp_path))], name="group", batch=1, timeout=600)
        first(task_id="before") >> group >> second(task_id="after", first=2)
    run = wf.submit(initial_channel={"k": [1]}, settings=graflow_settings)
    wait_until(lambda: list(tmp_path.glob("pid-*")), description="a member to run", timeout=30)
    client = client_runtime(graflow_settings).client
    keys = list(client.scan_iter(f"*{run.id}*"))
    try:
        assert len(keys) >= 8
        assert [key for key in keys if client.ttl(key) <= 0] == []
    finally:
        run.cancel()
        (tmp_path / "open").touch()


def test_a_task_that_kills_its_process_again_and_again_is_given_up(graflow_settings: Settings) -> None:
    @task(max_losses=2)
    def poison() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with workflow("poison") as wf:
        (poison | first).set_group_name("g")
    run = wf.submit(settings=graflow_settings)
    assert run.wait(timeout=60) is RunStatus.FAILED
    events = [record["event"] for record in run.events() if record.get("node") == "poison"]
    assert events.count("node_started") == 2
    assert events.count("node_lost") == 1
    with pytest.raises(ParallelGroupError, match=r"poison: WorkerLostError: .*as many as max_losses=2"):
        run.result()


def test_a_hard_time_limit_fails_the_node_and_not_only_its_process(graflow_settings: Settings, tmp_path: Path) -> None:
    @task(time_limit=1)
    def endless(gate: str) -> None:
        wait_until(Path(gate, "open").exists, timeout=60, description="a gate that stays closed")

    with workflow("too slow") as wf:
        ParallelGroup([endless(task_id="slow", gate=str(tmp_path)), first], name="g", batch=1)
    run = wf.submit(settings=graflow_settings)
    assert run.wait(timeout=60) is RunStatus.FAILED
    with pytest.raises(ParallelGroupError, match=r"slow: TimeLimitError: .*time_limit of 1 s"):
        run.result()
    with pytest.raises(TimeLimitError, match="Task 'slow'"):
        run.result("slow")


def test_a_policy_that_cannot_be_sent_is_refused_by_its_groups_name(graflow_settings: Settings) -> None:
    class Lenient:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def judge(self, outcomes: object) -> None:
            return None

    with workflow("own policy") as wf:
        ParallelGroup([first, first(task_id="other")], name="g", policy=Lenient())
    with pytest.raises(GraphCompilationError, match=r"Policy of group 'g': .*lock"):
        wf.submit(settings=graflow_settings)
