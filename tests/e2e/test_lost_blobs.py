"""The store loses what a run needs: its client puts that back while it waits, or the run says what is gone."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from graflow_celery import CheckpointManager, Settings, TaskExecutionContext, WorkflowContext, task, workflow
from graflow_celery.core.state import RunStatus
from graflow_celery.embedded import EmbeddedServer, EmbeddedWorkers
from graflow_celery.errors import BlobMissingError, RunTimeoutError
from graflow_celery.redis_backend.plea import CLOCK, MISSING, _cause, asking
from graflow_celery.runs import Run, client_runtime
from graflow_celery.settings import load_settings
from graflow_celery.testing import wait_until
from tests import servers
from tests.servers import free_port

pytestmark = pytest.mark.workers


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as started:
        yield started


@pytest.fixture
def settings(server: EmbeddedServer) -> Settings:
    return load_settings(redis_url=server.url)


def counting(bound: list[int]) -> WorkflowContext:
    """Functions and a bound value that travel as blobs, and a large channel value."""

    @task(max_retries=3)
    def first(numbers: list[int]) -> int:
        return sum(numbers)

    @task
    def second(first: int, words: str) -> int:
        return first + len(words)

    with workflow("counting") as wf:
        first(task_id="first", numbers=bound) >> second
    return wf


def lose(run: Run, *kept: str) -> list[str]:
    """Has the store forget every blob, but for those that are ``kept``; returns their names."""
    runtime = client_runtime(run._runtime.settings)
    names = [key.decode().rpartition(":")[2] for key in runtime.client.keys(f"{runtime.keys.prefix}:blob:*")]
    lost = [name for name in names if name not in kept]
    runtime.client.delete(*(runtime.keys.blob(name) for name in lost))
    runtime.content._cache._items.clear()
    return lost


def started(settings: Settings, numbers: int = 1000) -> Run:
    return counting(list(range(numbers))).submit(settings=settings, initial_channel={"words": "x" * 200_000})


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "uploaded again" in record.getMessage()]


@pytest.mark.parametrize("manifest", ["kept", "lost"])
def test_a_client_that_waits_puts_back_what_was_lost(
    settings: Settings, caplog: pytest.LogCaptureFixture, manifest: str
) -> None:
    run = started(settings)
    lost = lose(run, *([run.graph_hash] if manifest == "kept" else []))
    assert len(lost) >= 3
    with caplog.at_level(logging.WARNING), EmbeddedWorkers(settings, 1, 2):
        assert run.wait(timeout=60) is RunStatus.SUCCEEDED
        assert run.result() == sum(range(1000)) + 200_000
    [told] = warnings(caplog)
    assert re.search(r"had lost blob \w{32} .*, which 'first' needs; it was uploaded again", told)
    [event] = [record for record in run.events() if record["event"] == MISSING]
    assert event["names"] in lost
    assert event["node"] == "first"
    [happening] = [item for item in run.explain().happenings if item.event == MISSING]
    assert happening.reason.endswith(": blob " + ", ".join(event["names"].split(",")))


def test_so_does_one_with_an_event_loop(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    async def waits() -> int:
        result: int = await run
        return result

    run = started(settings)
    lose(run)
    with caplog.at_level(logging.WARNING), EmbeddedWorkers(settings, 1, 2):
        assert asyncio.run(waits()) == sum(range(1000)) + 200_000
    assert len(warnings(caplog)) == 1


def test_a_client_that_waits_brings_the_graph_back_before_there_are_workers(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    run = started(settings, 777)  # a graph that this process has not read before
    lose(run)
    with caplog.at_level(logging.WARNING), pytest.raises(RunTimeoutError):
        run.wait(timeout=5)
    assert len(warnings(caplog)) == 1
    with EmbeddedWorkers(settings, 1, 2):
        assert run.wait(timeout=60) is RunStatus.SUCCEEDED


def test_without_one_the_node_fails_and_says_what_is_gone(settings: Settings) -> None:
    run = started(settings)
    [manifest] = [run.graph_hash]
    lost = lose(run, manifest)
    began = time.monotonic()
    with EmbeddedWorkers(settings, 1, 2):
        assert Run.get(run.id, settings).wait(timeout=30) is RunStatus.FAILED
    assert time.monotonic() - began < 20
    with pytest.raises(BlobMissingError) as caught:
        run.result()
    error = caught.value
    assert error.digest in lost
    assert error.node == "first"
    assert str(error).startswith(f"Blob {error.digest} (function of task 'first', which 'first' needs) is not in the")
    assert "it expired or was deleted" in str(error)
    report = run.nodes()["first"]
    assert report is not None
    assert report.attempt == 1, "it was not retried"


def test_a_run_whose_graph_nobody_has_is_ended(settings: Settings) -> None:
    run = started(settings)
    lose(run)
    with EmbeddedWorkers(settings, 1, 2):
        assert Run.get(run.id, settings).wait(timeout=30) is RunStatus.FAILED
    assert f"Blob {run.graph_hash} (graph {run.graph_hash}, which 'first' needs) is not in" in run.reason


def test_an_evicting_server_is_named_as_the_cause() -> None:
    """One that was full for a moment, and then has room again, so that the rest of the run is there to tell of it."""
    with EmbeddedServer() as server:
        settings = load_settings(redis_url=server.url)
        run = started(settings)
        runtime = client_runtime(settings)
        kept = {key: runtime.client.dump(key) for key in runtime.client.scan_iter() if b":blob:" not in key}
        runtime.client.config_set("maxmemory-policy", "allkeys-random")
        runtime.client.config_set("maxmemory", 1)
        wait_until(lambda: not runtime.client.keys("*:blob:*"), description="the server to evict the blobs")
        runtime.client.config_set("maxmemory", 0)
        for key, data in kept.items():
            runtime.client.restore(key, 600_000, data, replace=True)
        evicted = runtime.client.info("stats")["evicted_keys"]
        assert evicted
        with EmbeddedWorkers(settings, 1, 1):
            assert Run.get(run.id, settings).wait(timeout=30) is RunStatus.FAILED
        assert "the server evicts what it has no room for (maxmemory-policy allkeys-random, " in run.reason
        assert "Set maxmemory-policy to noeviction" in run.reason


def test_a_restart_is_named_as_the_cause(tmp_path: Path) -> None:
    """Of a server that keeps nothing on disk. The rest of the run is put there again, so that it can tell."""
    port = free_port()
    with servers.started(tmp_path / "server", [f"port {port}", 'save ""', "appendonly no"], port) as server:
        settings = load_settings(redis_url=f"redis://127.0.0.1:{port}/0")
        run = started(settings)
        runtime = client_runtime(settings)
        kept = {key: runtime.client.dump(key) for key in runtime.client.scan_iter() if b":blob:" not in key}
        old = lambda: runtime.client.time()[0] - run.started_at > CLOCK + 1  # noqa: E731
        wait_until(old, description="the run to be older than the server will be")
        server.process.stop(grace=0.0)
        server.start(port)
        for key, data in kept.items():
            runtime.client.restore(key, 600_000, data, replace=True)
        with EmbeddedWorkers(settings, 1, 1):
            assert Run.get(run.id, settings).wait(timeout=30) is RunStatus.FAILED
        assert re.search(r"the server was restarted \d+ s ago, after the run had begun, and came back", run.reason)
        assert "Turn its persistence on (appendonly yes)" in run.reason


def test_a_restart_is_the_cause_if_the_run_is_older_than_the_server() -> None:
    cause = _cause({"evicted_keys": 3, "maxmemory_policy": "noeviction", "uptime_in_seconds": 10}, age=60.0)
    assert cause.startswith("the server was restarted 10 s ago, after the run had begun, and came back without it")
    assert _cause({"evicted_keys": 0, "maxmemory_policy": "allkeys-lru", "uptime_in_seconds": 100}, age=60.0) == ""
    assert _cause({"uptime_in_seconds": 10}, age=10.9) == "", "both began in one second"


def test_a_changed_value_is_not_put_back_as_what_it_was(settings: Settings) -> None:
    numbers = list(range(778))  # no other run that this process has is of the same graph
    run = counting(numbers).submit(settings=settings, initial_channel={"words": "x"})
    lose(run, run.graph_hash)
    numbers.append(5)
    with EmbeddedWorkers(settings, 1, 2):
        assert run.wait(timeout=60) is RunStatus.FAILED
    with pytest.raises(BlobMissingError, match="argument 'numbers' of task 'first'"):
        run.result()


def test_runs_of_one_graph_keep_it_once(settings: Settings) -> None:
    packed = client_runtime(settings).packed
    runs = [started(settings, 779)]
    name = runs[0].graph_hash
    first = weakref.ref(packed[name])
    runs += [started(settings, 779) for _ in range(2)]
    assert packed[name] is first()
    while runs:
        runs.pop().cancel()
    gc.collect()
    assert name not in packed


def test_several_that_wait_for_one_blob_are_woken_together(settings: Settings) -> None:
    run = started(settings)
    runtime = client_runtime(settings)
    [manifest] = [run.graph_hash]
    data = runtime.client.get(runtime.keys.blob(manifest))
    runtime.client.delete(runtime.keys.blob(manifest))
    found: list[bytes] = []

    def ask() -> None:
        with asking(run._run, "n"):
            found.append(runtime.content.plea.answered([manifest], "graph")[manifest])

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    told = 0
    for record in run.events(follow=True):
        told += record["event"] == MISSING
        if told == 5:
            break
    for thread in threads:
        thread.join(10)
    assert len(found) == 5
    assert {len(blob) for blob in found} == {len(data)}
    run.cancel()


def test_a_client_that_resumed_brings_back_the_checkpoints_values_too(settings: Settings, tmp_path: Path) -> None:
    @task
    def first() -> bytes:
        return b"r" * 150_000

    @task(inject_context=True)
    def keeps(context: TaskExecutionContext, path: str) -> None:
        context.checkpoint(path=path)

    @task
    def last(first: bytes, words: str) -> int:
        return len(first) + len(words)

    with workflow("kept") as wf:
        first >> keeps >> last
    path = str(tmp_path / "kept.ckpt")
    wf.execute(initial_channel={"words": "w" * 100_000, "path": path})
    context, _ = CheckpointManager.resume_from_checkpoint(path, settings=settings)
    run = context.submit()
    values = client_runtime(settings).holdings.of(run.id).values
    assert set(values) <= set(lose(run))
    assert len(values) == 2
    with EmbeddedWorkers(settings, 1, 2):
        assert run.wait(timeout=60) is RunStatus.SUCCEEDED, run.reason
    assert run.result("last") == 250_000
