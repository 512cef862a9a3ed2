"""How long values' blobs and graphs live: as long as a run needs them, and then for result_ttl. With a real server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from graflow_celery import WorkflowContext, task, workflow
from graflow_celery.celery_backend.app import create_app, runtime_of
from graflow_celery.celery_backend.retrying import retry
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.celery_backend.watching import monitor_of
from graflow_celery.core.events import CancelRequested, NodeFailed, NodeSucceeded
from graflow_celery.core.state import RunStatus
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.errors import BlobMissingError
from graflow_celery.ports import Attempt, Outcome, RunRef
from graflow_celery.redis_backend.holdings import SLICE, run_of
from graflow_celery.redis_backend.renewing import renew
from graflow_celery.runs import Run
from graflow_celery.settings import load_settings

RUN_TTL, RESULT_TTL = 7200, 600
LARGE = 100_000


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as started:
        yield started


@pytest.fixture
def runtime(server: EmbeddedServer) -> Runtime:
    settings = load_settings(
        redis_url=server.url, key_prefix=uuid.uuid4().hex[:8], run_ttl=RUN_TTL, result_ttl=RESULT_TTL
    )
    return runtime_of(create_app(settings), settings)


def two() -> WorkflowContext:
    @task
    def first() -> bytes:
        return b""

    @task
    def second(first: bytes) -> int:
        return len(first)

    with workflow("two") as wf:
        first >> second
    return wf


def submitted(runtime: Runtime, **channel: object) -> Run:
    run = two().submit(settings=runtime.settings, initial_channel=channel)
    run._runtime = runtime
    return run


def succeeds(runtime: Runtime, run: RunRef, node: str, value: object) -> None:
    plan = runtime.plan_for(run)
    runtime.store.begin(Attempt(run, plan, node, run.first, "w"), [], [])
    runtime.engine.deliver(run, plan, NodeSucceeded(node, run.first), Outcome(value=value, worker="w"))


def blobs_of(runtime: Runtime, run: RunRef) -> list[str]:
    return list(runtime.holdings.of(run.id).values)


def left(runtime: Runtime, name: str) -> int:
    return int(runtime.client.ttl(runtime.keys.blob(name)))


def holders(runtime: Runtime, name: str) -> set[str]:
    return {run_of(member.decode()) for member in runtime.client.smembers(runtime.keys.holders(name))}


def test_a_value_lives_for_result_ttl_after_the_run_ended(runtime: Runtime) -> None:
    run = submitted(runtime, words=os.urandom(LARGE))
    succeeds(runtime, run._run, "first", os.urandom(LARGE))
    names = blobs_of(runtime, run._run)
    assert len(names) == 2
    assert all(left(runtime, name) > RUN_TTL - 60 and holders(runtime, name) == {run.id} for name in names)
    succeeds(runtime, run._run, "second", 1)
    assert run.status is RunStatus.SUCCEEDED
    assert all(RESULT_TTL - 60 < left(runtime, name) <= RESULT_TTL for name in names)
    assert not any(holders(runtime, name) for name in names)
    assert len(run.result("first")) == LARGE
    assert left(runtime, run.graph_hash) > RUN_TTL - 60, "a graph is not the run's alone"


def test_a_value_that_another_run_holds_lives_on(runtime: Runtime) -> None:
    value = os.urandom(LARGE)
    one, other = submitted(runtime, words=value), submitted(runtime, words=value)
    [name] = blobs_of(runtime, one._run)
    assert blobs_of(runtime, other._run) == [name]
    assert holders(runtime, name) == {one.id, other.id}
    one.cancel()
    assert left(runtime, name) > RUN_TTL - 60
    other.cancel()
    assert left(runtime, name) <= RESULT_TTL


def test_elements_of_lists_and_values_with_a_deadline_are_held_too(runtime: Runtime) -> None:
    run = submitted(runtime)
    channel = runtime.channel(run._run)
    channel.set("list", [os.urandom(LARGE)])
    channel.append("list", os.urandom(LARGE))
    channel.set("short", os.urandom(LARGE), ttl=60)
    names = blobs_of(runtime, run._run)
    assert len(names) == 3
    stored = runtime.retries.read(run.id)
    assert {item.name for item in stored.large} == set(names)
    run.cancel()
    assert all(left(runtime, name) <= RESULT_TTL for name in names)


def test_many_blobs_are_let_go_of_in_slices(runtime: Runtime) -> None:
    run = submitted(runtime)
    names = [f"{number:032x}" for number in range(SLICE + 3)]
    with runtime.client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.set(runtime.keys.blob(name), "x", ex=RUN_TTL)
        pipe.execute()
    assert runtime.holdings.hold(run._run, names) == []
    run.cancel()
    assert all(left(runtime, name) <= RESULT_TTL for name in names)


def test_who_ended_a_run_and_died_before_it_let_go_is_made_up_for_by_the_monitor(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = submitted(runtime, words=os.urandom(LARGE))
    [name] = blobs_of(runtime, run._run)

    class Died(Exception):
        pass

    def dies(run: RunRef) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(runtime.holdings, "release", dies)
        with pytest.raises(Died):
            runtime.engine.end(run._run, CancelRequested("r"))
    assert run.status is RunStatus.CANCELLED
    assert left(runtime, name) > RUN_TTL - 60
    runtime.store.hurry(run._run)
    assert list(runtime.store.late()) == []
    assert left(runtime, name) <= RESULT_TTL


def failed(runtime: Runtime) -> tuple[Run, str]:
    run = submitted(runtime)
    succeeds(runtime, run._run, "first", os.urandom(LARGE))
    [name] = blobs_of(runtime, run._run)
    plan = runtime.plan_for(run._run)
    runtime.store.begin(Attempt(run._run, plan, "second", 1, "w"), [], [])
    runtime.engine.deliver(run._run, plan, NodeFailed("second", 1, "r", False), Outcome(error=ValueError(), worker="w"))
    assert run.status is RunStatus.FAILED
    return run, name


def test_a_retried_run_takes_hold_again_and_who_still_ends_the_former_one_changes_nothing(runtime: Runtime) -> None:
    run, name = failed(runtime)
    before = RunRef(run.id, run.details()["graph"])
    assert left(runtime, name) <= RESULT_TTL
    retry(runtime, run.id)
    assert left(runtime, name) > RUN_TTL - 60
    runtime.holdings.release(before)
    assert left(runtime, name) > RUN_TTL - 60
    run._run = RunRef(run.id, run.details()["graph"])
    run.cancel()
    assert left(runtime, name) <= RESULT_TTL


def test_a_retry_is_refused_before_anything_is_changed_if_a_value_is_gone(runtime: Runtime) -> None:
    run, name = failed(runtime)
    runtime.client.delete(runtime.keys.blob(name))
    details = run.details()
    for dry_run in (True, False):
        with pytest.raises(BlobMissingError, match=f"Blob {name} .result 'first' of run {run.id}."):
            retry(runtime, run.id, dry_run=dry_run)
    assert run.details() == details
    retry(runtime, run.id, ["first"])  # which brings that value again


def test_the_monitor_renews_what_a_run_needs_that_goes_on_for_long(runtime: Runtime) -> None:
    run = submitted(runtime, words=os.urandom(LARGE))
    succeeds(runtime, run._run, "first", os.urandom(LARGE))
    client, keys = runtime.client, runtime.keys
    names = [*blobs_of(runtime, run._run), *runtime.content.names_of(run.graph_hash)]
    assert len(names) >= 5
    needed = [keys.blob(name) for name in names] + [
        keys.run(run.id).results,
        keys.run(run.id).channel,
        keys.run(run.id).blobs,
    ]
    monitor = monitor_of(runtime, "m")

    def age(seconds: int) -> None:
        for key in needed:
            client.expire(key, RUN_TTL - seconds)
        client.hset(keys.run(run.id).meta, "started", int(client.time()[0] - seconds) * 1000)
        client.hdel(keys.run(run.id).meta, "renewed")
        runtime.store.hurry(run._run)

    age(RUN_TTL // 4 - 60)
    monitor.tick()
    assert monitor.leads
    assert all(client.ttl(key) < RUN_TTL - 1000 for key in needed)
    age(RUN_TTL // 4 + 60)
    monitor.tick()
    assert all(client.ttl(key) > RUN_TTL - 60 for key in needed)
    for key in needed:
        client.expire(key, 5000)
    runtime.store.hurry(run._run)
    monitor.tick()
    assert all(client.ttl(key) <= 5000 for key in needed), "once, until as much time has passed again"


def test_a_run_that_holds_added_tasks_alone_holds_them_on(runtime: Runtime) -> None:
    run = submitted(runtime)
    with runtime.client.pipeline(transaction=False) as pipe:
        runtime.holdings.add_graph(pipe, run._run, run.graph_hash)
        pipe.execute()
    blobs = runtime.keys.run(run.id).blobs
    runtime.client.expire(blobs, 60)
    renew(runtime.client, runtime.keys, runtime.content, runtime.holdings, run._run)
    assert runtime.client.ttl(blobs) > RUN_TTL - 60


def test_no_key_is_without_a_time_to_live(runtime: Runtime) -> None:
    run, _ = failed(runtime)
    retry(runtime, run.id)
    runtime.content.plea.tell(run._run, "first", ["name"], "what")
    runtime.content.plea.ring(run._run)
    keys = [key.decode() for key in runtime.client.keys(f"{runtime.keys.prefix}:*")]
    permanent = {runtime.keys.runs, runtime.keys.active}
    assert {key for key in keys if runtime.client.ttl(key) == -1} == permanent
    assert {runtime.keys.run(run.id).restored, runtime.keys.run(run.id).blobs} <= set(keys)
