"""Tasks that a real run adds, and their blobs: the run holds them, they are renewed, kept, and missed by name."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator

import pytest

from graflow_celery import Settings, TaskExecutionContext, WorkflowContext, chain, task, workflow
from graflow_celery.celery_backend.watching import monitor_of
from graflow_celery.core.state import RunStatus
from graflow_celery.embedded import EmbeddedServer, EmbeddedWorkers
from graflow_celery.errors import BlobMissingError
from graflow_celery.runs import Run, client_runtime
from graflow_celery.settings import load_settings
from graflow_celery.testing import wait_until

pytestmark = pytest.mark.workers

RUN_TTL = 7200


@pytest.fixture
def settings() -> Iterator[Settings]:
    with EmbeddedServer() as server:
        yield load_settings(redis_url=server.url, run_ttl=RUN_TTL)


def adding() -> WorkflowContext:
    """A task that adds another one, which waits in the queue ``later``, and one that follows."""
    numbers = [*range(2000), secrets.randbits(60)]

    @task(inject_context=True)
    def adds(context: TaskExecutionContext) -> str:
        @task(queue="later")
        def added(numbers: list[int]) -> int:
            return len(numbers)

        context.next_task(added(task_id="added", numbers=numbers))
        return "added one"

    @task
    def follows(adds: str) -> str:
        return f"{adds}, and it ran"

    with workflow("adding") as wf:
        adds >> follows
    return wf


def left_to_run(settings: Settings) -> tuple[Run, list[str]]:
    """A run whose added task waits in a queue of its own, and the blobs of the graph that was added."""
    run = adding().submit(settings=settings)
    with EmbeddedWorkers(settings, 1, 1):
        wait_until(
            lambda: run.nodes()["adds"] is not None and len(run._runtime.store.records(run._run)) == 2,
            timeout=30,
            description="the task to be added",
        )
    runtime = client_runtime(settings)
    [graph] = runtime.holdings.of(run.id).graphs
    assert runtime.plan_for(run._run, graph)["added"].options.queue == "later"
    return run, [
        name for name in runtime.content.names_of(graph) if name not in runtime.content.names_of(run.graph_hash)
    ]


def finished(settings: Settings, run: Run) -> RunStatus:
    with EmbeddedWorkers(settings, 1, 1, queues=["later", "celery"]):
        return run.wait(timeout=60)


def test_the_run_holds_them_until_it_has_ended(settings: Settings) -> None:
    run, names = left_to_run(settings)
    assert len(names) >= 3, "a manifest, a function and a bound value"
    runtime = client_runtime(settings)
    blobs = [runtime.keys.blob(name) for name in names]
    assert runtime.garbage.clean(0, dry_run=False).removed == []
    assert runtime.client.exists(*blobs) == len(blobs)

    for key in blobs:
        runtime.client.expire(key, 60)
    runtime.client.hset(runtime.keys.run(run.id).meta, "started", int(runtime.client.time()[0] - RUN_TTL) * 1000)
    runtime.client.hdel(runtime.keys.run(run.id).meta, "renewed")
    runtime.store.hurry(run._run)
    monitor = monitor_of(runtime, "m")
    wait_until(lambda: monitor.tick() >= 0 and monitor.leads, timeout=20, description="the monitor to lead")
    assert all(runtime.client.ttl(key) > RUN_TTL - 60 for key in blobs)

    assert finished(settings, run) is RunStatus.SUCCEEDED, run.reason
    assert run.results() == {"adds": "added one", "added": 2001, "follows": "added one, and it ran"}
    assert runtime.garbage.clean(0, dry_run=False).removed == [], "a retry needs them"
    runtime.client.delete(*runtime.keys.run(run.id).all())
    assert set(names) <= {blob.name for blob in runtime.garbage.clean(0, dry_run=False).removed}


def test_a_retry_runs_them_again_or_says_at_once_that_they_are_gone(settings: Settings) -> None:
    run, names = left_to_run(settings)
    runtime = client_runtime(settings)
    run.cancel()
    data = {name: runtime.client.get(runtime.keys.blob(name)) for name in names}
    for name in names:
        runtime.client.delete(runtime.keys.blob(name))
        runtime.content._cache._items.clear()
        with pytest.raises(BlobMissingError, match=f"Blob {name} "):
            run.retry_failed()
        assert run.status is RunStatus.CANCELLED
        runtime.client.set(runtime.keys.blob(name), data[name], ex=RUN_TTL)
    run.retry_failed()
    assert finished(settings, run) is RunStatus.SUCCEEDED, run.reason
    assert run.results()["added"] == 2001


@pytest.mark.parametrize("lost", ["the graph", "its parts"])
def test_who_waits_does_not_have_them_and_the_run_says_what_is_gone(
    settings: Settings, caplog: pytest.LogCaptureFixture, lost: str
) -> None:
    """The worker that added them is gone; the client's own graph, which is lost too, it brings back."""
    run, names = left_to_run(settings)
    runtime = client_runtime(settings)
    [graph] = runtime.holdings.of(run.id).graphs
    gone = [graph] if lost == "the graph" else [name for name in names if name != graph]
    base = runtime.content.names_of(run.graph_hash)
    runtime.client.delete(*(runtime.keys.blob(name) for name in {*gone, *base}))
    runtime.content._cache._items.clear()
    with caplog.at_level(logging.WARNING):
        assert finished(settings, run) is RunStatus.FAILED
    assert any(f"Blob {name} (" in run.reason for name in gone)
    assert "which 'added' needs) is not in the content store: it expired or was deleted" in run.reason
    assert not any(name in text for name in gone for text in caplog.messages if "uploaded again" in text)
    assert runtime.content.absent([run.graph_hash]) == []
    with pytest.raises(BlobMissingError):
        run.retry_failed()
    told = [item.reason for item in run.explain().happenings if item.event == "blobs_missing"]
    assert any(name in text for name in gone for text in told)


def test_a_run_whose_added_tasks_failed_before_they_began_is_explained_and_retried(settings: Settings) -> None:
    @task(inject_context=True)
    def adds(context: TaskExecutionContext) -> None:
        def added(numbers: list[int]) -> int:
            return len(numbers)

        first = task(queue="later")(added)(task_id="first", numbers=list(range(1000)))
        context.next_task(chain(first, task("second", queue="later")(lambda: 2)))

    with workflow("adding a chain") as wf:
        wf.add(adds)
    run = wf.submit(settings=settings)
    with EmbeddedWorkers(settings, 1, 1):
        wait_until(lambda: len(run._runtime.store.records(run._run)) == 2, timeout=30, description="tasks to be added")
    runtime = client_runtime(settings)
    [graph] = runtime.holdings.of(run.id).graphs
    kept = {name: runtime.client.get(runtime.keys.blob(name)) for name in runtime.content.names_of(graph)}
    for name in kept.keys() - {graph}:
        runtime.client.delete(runtime.keys.blob(name))
    assert finished(settings, run) is RunStatus.FAILED
    assert [item.node.partition("@")[0] for item in run.explain().failures] == ["first"]
    for name, data in kept.items():
        runtime.client.set(runtime.keys.blob(name), data, ex=RUN_TTL)
    run.retry_failed()
    assert finished(settings, run) is RunStatus.SUCCEEDED, run.reason
    assert {name: run.results()[name] for name in ("first", "second")} == {"first": 1000, "second": 2}
