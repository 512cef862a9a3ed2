"""Where a secret is set, nobody else can say which graph a run is of: not in a message, nor in the store."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from graflow_celery import Settings, WorkflowContext, task, workflow
from graflow_celery.celery_backend.compiler import NODE_TASK
from graflow_celery.core.state import RunStatus
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.ports import RunRef
from graflow_celery.runs import client_runtime
from graflow_celery.testing import embedded_cluster, wait_until

pytestmark = pytest.mark.workers
SECRET = secrets.token_hex(16)


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    with embedded_cluster(secret_key=SECRET) as started:
        yield started


@pytest.fixture
def settings(cluster: EmbeddedCluster) -> Settings:
    return cluster.settings


def waits() -> WorkflowContext:
    """A workflow whose second node runs when the channel says so: until then the run goes on."""

    @task
    def first() -> str:
        return "one"

    @task(inject_context=True, max_retries=100)
    def second(context: object, first: str) -> str:
        return f"{first} two"

    with workflow("waits") as wf:
        first >> second
    return wf


def other_graph(settings: Settings) -> str:
    """The hash of another graph that somebody with the secret stored, with a node of the same name."""

    @task(id="first")
    def other() -> str:
        return "not what was submitted"

    with workflow("other") as wf:
        other >> task(id="second")(lambda first: first)
    run = wf.submit(settings=settings)
    run.wait(timeout=30)
    return run.graph_hash


def test_a_run_with_everything_in_it_ends_as_without_a_secret(settings: Settings) -> None:
    @task
    def numbers() -> list[int]:
        return [1, 2, 3]

    @task
    def square(number: int) -> int:
        return number * number

    @task(inject_context=True)
    def adds(context, square):  # type: ignore[no-untyped-def]
        @task
        def added() -> bytes:
            return b"x" * 200_000

        context.next_task(added)
        return sum(square)

    with workflow("everything") as wf:
        numbers >> square.map(numbers) >> adds
    run = wf.submit(settings=settings)
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert run.result("adds") == 14
    assert run.results()["added"] == b"x" * 200_000


def test_a_run_with_a_secret_can_be_retried(settings: Settings, tmp_path: Path) -> None:
    """Its reference is ``HASH~2.TAG`` then, and the store counts attempts from 2 on in spite of the tag."""
    gate = tmp_path / "gate"

    @task
    def numbers() -> list[int]:
        return [1, 2]

    @task
    def double(number: int) -> int:
        return 2 * number

    @task
    def held(double: list[int]) -> int:
        if not gate.exists():
            raise RuntimeError("the gate is closed")
        return sum(double)

    @task
    def left(held: int) -> int:
        return held

    @task
    def right(held: int) -> int:
        return -held

    with workflow("retried") as wf:
        numbers >> double.map(numbers) >> held >> (left | right)
    run = wf.submit(settings=settings)
    assert run.wait(timeout=30) is RunStatus.FAILED
    gate.touch()
    run.retry_failed()
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert (run.result("left"), run.result("right")) == (6, -6)


def test_a_forged_message_is_dropped_and_the_run_goes_on(cluster: EmbeddedCluster, settings: Settings) -> None:
    runtime = client_runtime(settings)
    graph = other_graph(settings)
    queue = f"held-{secrets.token_hex(4)}"
    run = waits().submit(settings=settings.model_copy(update={"queue": queue}))
    for forged in (graph, f"{graph}.{'A' * 22}", f"{graph}.{run._run.tag}", run.graph_hash):
        runtime.app.send_task(NODE_TASK, args=(run.id, forged, "first", 1))
    # One whose signature is right, but is another run's.
    another = runtime.refer("another", run.graph_hash)
    runtime.app.send_task(NODE_TASK, args=(run.id, another.graph, "first", 1))
    worker = cluster.workers[0]
    wait_until(
        lambda: worker.process.output().count(f"run {run.id}: a message of it is dropped") == 5, description="5 drops"
    )
    assert run.status is RunStatus.RUNNING
    assert [record["event"] for record in run.events() if record.get("node")] == ["node_queued"]
    run.cancel()


def test_a_run_whose_graph_was_exchanged_in_the_store_ends_with_an_error(settings: Settings) -> None:
    runtime = client_runtime(settings)
    graph = other_graph(settings)
    queue = f"held-{secrets.token_hex(4)}"
    run = waits().submit(settings=settings.model_copy(update={"queue": queue}))
    forged = RunRef(run.id, f"{graph}.{run._run.tag}")
    runtime.client.hset(runtime.keys.run(run.id).meta, "graph", forged.graph)
    runtime.app.send_task(NODE_TASK, args=(run.id, forged.graph, "first", 1))
    assert run.wait(timeout=30) is RunStatus.FAILED
    assert f"Graph {graph} of run {run.id}: The signature of this reference is wrong" in run.reason


def test_added_tasks_of_another_workflow_are_refused(settings: Settings) -> None:
    runtime = client_runtime(settings)
    graph = other_graph(settings)
    queue = f"held-{secrets.token_hex(4)}"
    run = waits().submit(settings=settings.model_copy(update={"queue": queue}))
    runtime.app.send_task(NODE_TASK, args=(run.id, run._run.graph, "first", 1, graph))
    assert run.wait(timeout=30) is RunStatus.FAILED
    assert f"Graph {graph} adds nothing to graph {run.graph_hash} of run {run.id}." in run.reason


def test_checkpoints_go_where_the_client_said_and_nowhere_else(
    cluster: EmbeddedCluster, settings: Settings, tmp_path: Path
) -> None:
    @task
    def first() -> str:
        return "one"

    @task
    def second(first: str) -> str:
        return f"{first} two"

    with workflow("saves") as wf:
        first >> second
    run = wf.submit(settings=settings, checkpoint_every=1, checkpoint_to=tmp_path / "mine")
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    wait_until(lambda: run.checkpoints() != [], description="a checkpoint")
    assert Path(run.checkpoints()[0]).is_relative_to(tmp_path / "mine")

    queue = f"held-{secrets.token_hex(4)}"
    held = settings.model_copy(update={"queue": queue})
    run = wf.submit(settings=held, checkpoint_every=1, checkpoint_to=tmp_path / "mine")
    runtime = client_runtime(settings)
    runtime.client.hset(runtime.keys.run(run.id).meta, "checkpoint_to", str(tmp_path / "theirs"))
    runtime.app.send_task(NODE_TASK, args=(run.id, run._run.graph, "first", 1))
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    said = (
        f"run {run.id}: no checkpoint: Where checkpoints of run {run.id} go: The signature of this reference is wrong"
    )
    wait_until(lambda: said in cluster.workers[0].process.output(), description="the refusal")
    assert run.checkpoints() == []
    assert not (tmp_path / "theirs").exists()
