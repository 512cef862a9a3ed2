"""No command's arguments or answer grow with a run, so that no run holds up the others on its server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from graflow_celery import ParallelGroup, Run, RunStatus, WorkflowContext, task, workflow
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.events import NodeSucceeded
from graflow_celery.core.rerun import rerun
from graflow_celery.core.task import Task, TaskWrapper
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.ports import RunRef
from graflow_celery.redis_backend.slices import SLICE
from graflow_celery.runs import client_runtime
from graflow_celery.settings import load_settings
from tests.bench.scale.stages import driven
from tests.server_log import ServerLog, logged

MEMBERS = 3_000
#: More than Lua can unpack at once.
SUCCESSORS = 9_000
#: Arguments of the longest command: fields and values of a slice, or what 1,000 nodes are asked of.
MOST = max(2 * SLICE, 1_000) + 50
#: What grows with a run.
LARGE = ("nodes", "joins", "results", "errors", "inputs", "outbox", "watch", "events")


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as started:
        yield started


@pytest.fixture(scope="module")
def runtime(server: EmbeddedServer) -> Runtime:
    return client_runtime(load_settings(redis_url=server.url, key_prefix=uuid.uuid4().hex[:8]))


def large() -> WorkflowContext:
    @task
    def member() -> int:
        return 1

    @task
    def last() -> int:
        return 1

    def new(index: int) -> TaskWrapper:
        return member.bind(task_id=f"m{index}")

    with workflow("large") as wf:
        ParallelGroup([new(index) for index in range(MEMBERS)], name="members") >> last
    return wf


@pytest.fixture(scope="module")
def ended(runtime: Runtime) -> Run:
    """A run that failed with its last node."""
    run = large().submit(settings=runtime.settings)
    driven(runtime, run, run.plan)
    assert run.status is RunStatus.FAILED
    return run


def check(log: ServerLog) -> None:
    longest = log.longest()
    assert longest.count <= MOST, f"{longest.name} {longest.key} has {longest.count} arguments"
    assert log.whole(*LARGE) == []


def test_a_large_group_is_submitted_and_ended_in_small_commands(runtime: Runtime) -> None:
    with logged(runtime.client) as log:
        run = large().submit(settings=runtime.settings)
        driven(runtime, run, run.plan)
    assert len(log.commands) > 2 * MEMBERS
    check(log)


def test_a_large_run_is_read_in_small_commands(runtime: Runtime, ended: Run) -> None:
    with logged(runtime.client) as log:
        assert len(ended.results()) == MEMBERS
        assert len(ended.nodes()) == MEMBERS + 2
        assert len(list(ended.events())) > 2 * MEMBERS
        ended.explain()
    check(log)


def test_a_large_run_is_restored_and_retried_in_small_commands(runtime: Runtime, ended: Run) -> None:
    snapshot = runtime.snapshots.snapshot(ended._run)
    copy = RunRef(f"{ended.id}-copy", ended.graph_hash)
    with logged(runtime.client) as log:
        runtime.snapshots.restore(copy, snapshot, {"workflow": "large"})
        report = ended.retry_failed()
    assert (report.again, len(report.kept)) == (("last",), MEMBERS)
    check(log)
    keys = runtime.keys
    assert runtime.client.hlen(keys.run(copy.id).nodes) == runtime.client.hlen(keys.run(ended.id).nodes) == MEMBERS + 2
    assert ended.status is RunStatus.RUNNING
    assert list(runtime.client.scan_iter(f"{keys.run(ended.id).joins}:*")) == []
    assert runtime.client.ttl(keys.run(ended.id).joins) > 3600


def test_what_was_prepared_for_a_retry_that_came_too_late_is_not_left(runtime: Runtime) -> None:
    run = large().submit(settings=runtime.settings)
    run.cancel("enough")
    stored = runtime.retries.read(run.id)
    run.retry_failed()
    made = rerun(stored.state, lambda graph: runtime.plan_for(stored.run, graph))
    assert runtime.retries.go_on(stored, made, {}) is None
    assert list(runtime.client.scan_iter(f"{runtime.keys.run(run.id).joins}:*")) == []


def test_a_node_may_have_thousands_of_successors(runtime: Runtime) -> None:
    with workflow("fan") as wf:
        first, last = Task("first"), Task("last")
        for index in range(SUCCESSORS):
            first >> Task(f"n{index}") >> last
    run = wf.submit(settings=runtime.settings)
    applied = runtime.store.commit(run._run, runtime.engine.scheduler.decide(run.plan, NodeSucceeded("first", 1)))
    assert len(applied.emissions) == SUCCESSORS
    keys = runtime.keys.run(run.id)
    assert runtime.client.hlen(keys.nodes) == SUCCESSORS + 1
    assert runtime.client.zcard(keys.outbox) == SUCCESSORS
