"""Runs that are awaited, followed and executed from an event loop."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
import pytest

from graflow_celery import GraflowWorkflowCanceledError, Run, RunStatus, Settings, TaskExecutionContext, task, workflow
from graflow_celery.celery_backend.app import create_app
from graflow_celery.distributed import recent_runs
from graflow_celery.embedded import EmbeddedCluster, EmbeddedServer
from graflow_celery.errors import (
    NoWorkerError,
    RunFailedError,
    RunNotFoundError,
    RunTimeoutError,
    StoreUnavailableError,
)
from graflow_celery.ports import EventRecord
from graflow_celery.redis_backend import async_events
from graflow_celery.redis_backend.async_events import CLIENT_NAME, hub_of
from graflow_celery.redis_backend.client import connect
from graflow_celery.runs import client_runtime
from graflow_celery.testing import wait_until
from graflow_celery.workflows import WorkflowContext

pytestmark = pytest.mark.workers

FEW, MANY = 10, 1000
LATER = "later"
PAIR_EVENTS = [
    *("run_submitted", "node_queued", "run_started", "node_started", "node_succeeded"),
    *("node_queued", "node_started", "node_succeeded"),
    "run_succeeded",
]


@task
def one() -> int:
    return 1


@task
async def two(one: int) -> int:
    await asyncio.sleep(0.01)
    return one + 1


@task
async def broken() -> None:
    await asyncio.sleep(0)
    raise LookupError("nothing there")


@task(inject_context=True)
def gated(context: TaskExecutionContext, gate: str) -> int:
    Path(gate, "began").touch()
    wait_until(Path(gate, "open").exists, timeout=60, description="the gate to open")
    return 1


def note(where: str, what: str) -> None:
    Path(where, what).touch()


def pair() -> WorkflowContext:
    with workflow("pair") as wf:
        one >> two
    return wf


def slow(gate: Path) -> WorkflowContext:
    with workflow("slow") as wf:
        gated(task_id="slow", gate=str(gate)) >> one
    return wf


async def until(predicate: Callable[[], object], description: str) -> None:
    await asyncio.to_thread(wait_until, predicate, timeout=30, description=description)


async def began(gate: Path) -> None:
    await until((gate / "began").exists, "the task to begin")


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


def names(records: list[EventRecord]) -> list[str]:
    return [str(record["event"]) for record in records]


def connections(settings: Settings) -> list[str]:
    """The names of the connections to the server."""
    return [str(found["name"]) for found in client_runtime(settings).client.client_list()]


@in_loop
async def test_a_run_is_awaited_as_often_as_wanted_and_by_its_id(graflow_settings: Settings) -> None:
    run = pair().submit(settings=graflow_settings)
    assert await run == 2
    assert await Run.get(run.id, graflow_settings) == 2

    async def awaited() -> Any:
        return await run

    assert list(await asyncio.gather(awaited(), awaited())) == [2, 2]


@in_loop
async def test_awaiting_raises_what_result_raises(graflow_settings: Settings, tmp_path: Path) -> None:
    with workflow("broken") as wf:
        wf.add(broken)
    with pytest.raises(LookupError, match="nothing there"):
        await wf.submit(settings=graflow_settings)
    run = slow(tmp_path).submit(settings=graflow_settings)
    await began(tmp_path)
    asyncio.get_running_loop().call_later(0.05, run.cancel, "enough")
    with pytest.raises(GraflowWorkflowCanceledError, match="enough"):
        await run
    (tmp_path / "open").touch()


@in_loop
async def test_events_come_while_they_happen_and_end_with_the_run(graflow_settings: Settings, tmp_path: Path) -> None:
    run = slow(tmp_path).submit(settings=graflow_settings)
    seen: list[EventRecord] = []
    async for record in run.aevents():
        seen.append(record)
        if record["event"] == "node_started" and record["node"] == "slow":
            assert run.status is RunStatus.RUNNING
            (tmp_path / "open").touch()
    assert names(seen) == PAIR_EVENTS
    assert seen == list(run.events())


@in_loop
async def test_the_connections_end_with_the_last_follower(graflow_settings: Settings, tmp_path: Path) -> None:
    run = slow(tmp_path).submit(settings=graflow_settings)
    async with aclosing(run.aevents()) as events:
        assert (await anext(events))["event"] == "run_submitted"
        await until(lambda: connections(graflow_settings).count(CLIENT_NAME) == 1, "the reading connection alone")
    await until(lambda: CLIENT_NAME not in connections(graflow_settings), "the connection to be closed")
    (tmp_path / "open").touch()
    assert await run == 1, "another hub is at work after that"


def test_the_connections_end_with_the_loop_at_whatever_moment_that_ends(graflow_settings: Settings) -> None:
    run = pair().submit(settings=graflow_settings)

    async def follow(turns: int) -> None:
        assert await run == 2
        for _ in range(turns):
            await asyncio.sleep(0)

    for turns in range(40):
        asyncio.run(follow(turns))
        wait_until(lambda: CLIENT_NAME not in connections(graflow_settings), description="the connections to be closed")


@in_loop
async def test_a_run_that_the_store_lost_is_not_waited_for(
    graflow_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(async_events, "BLOCK", 0.2)
    with workflow("no worker") as wf:
        wf.add(task(id="waits", queue="nobody consumes this")(one.func))
    run = wf.submit(settings=graflow_settings)
    events = run.aevents()
    seen = [await anext(events) for _ in range(3)]
    assert seen[-1]["event"] == "workers_missing"
    assert seen[-1]["queues"] == ["nobody consumes this"]
    runtime = client_runtime(graflow_settings)
    runtime.client.delete(*runtime.keys.run(run.id).all())
    with pytest.raises(RunNotFoundError):
        await run
    with pytest.raises(RunNotFoundError):
        await anext(events)


def test_a_thousand_awaited_runs_take_no_more_threads_and_connections_than_ten(
    graflow_cluster: EmbeddedCluster,
) -> None:
    settings = graflow_cluster.settings
    with workflow("no-op") as wf:
        wf.add(task(id="later", queue=LATER)(one.func))
    app = create_app(settings)

    async def awaited(run: Run) -> Any:
        return await run

    async def counted(count: int) -> tuple[int, int, int, int]:
        runs = await asyncio.gather(*(asyncio.to_thread(wf.submit, settings=settings) for _ in range(count)))
        waiting = []
        for part in (runs[::2], runs[1::2]):  # the second half while the read for the first one blocks
            waiting += [asyncio.ensure_future(awaited(run)) for run in part]
            await asyncio.sleep(0.3)
        hub = hub_of(settings.redis_url, settings.key_prefix)
        assert len(hub) == count
        held = connections(settings).count(CLIENT_NAME)
        app.control.add_consumer(LATER, reply=True)
        assert await asyncio.gather(*waiting) == [1] * count
        app.control.cancel_consumer(LATER, reply=True)
        process = psutil.Process()
        return held, threading.active_count(), process.num_fds(), len(connections(settings))

    few, many = asyncio.run(counted(FEW)), asyncio.run(counted(MANY))
    assert max(few[0], many[0]) <= 2
    # The pools of threads, 8 of the library and those in which the test submits, need not be as busy with few runs, and
    # each of their threads has a connection when it makes a call: some 30 between them, not a thousand.
    for after_few, after_many in zip(few[1:], many[1:], strict=True):
        assert after_many <= after_few + 30, (few, many)


@in_loop
async def test_a_thousand_followers_of_events_each_see_all_of_them(graflow_settings: Settings) -> None:
    run = pair().submit(settings=graflow_settings)

    async def followed() -> list[str]:
        return [str(record["event"]) async for record in run.aevents()]

    before = threading.active_count()
    assert await asyncio.gather(*(followed() for _ in range(MANY))) == [PAIR_EVENTS] * MANY
    assert threading.active_count() <= before + 8


@in_loop
async def test_a_server_that_restarts_is_followed_again(tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path)
    server.start()
    try:
        seen: list[str] = []

        async def follow() -> None:
            async for record in hub_of(server.url, "restarts").follow("stream"):
                seen.append(str(record["event"]))
                if record["event"] == "last":
                    return

        following = asyncio.ensure_future(follow())
        connect(server.url).xadd("stream", {"event": "first"})
        await until(lambda: seen, "the first record")
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(0.3)
        await asyncio.to_thread(server.start)
        connect(server.url).xadd("stream", {"event": "last"})
        await asyncio.wait_for(following, 30)
        assert seen == ["first", "last"]
    finally:
        server.stop()


@in_loop
async def test_a_server_that_stays_away_is_told_of() -> None:
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1"):
        await anext(hub_of("redis://127.0.0.1:1/0", "away", 0.3).follow("stream"))


async def executed(wf: WorkflowContext, backend: str, settings: Settings, **options: Any) -> Any:
    chosen = settings if backend == "celery" else None
    return await wf.execute_async(backend=backend, settings=chosen, **options)  # type: ignore[arg-type]


both = pytest.mark.parametrize("backend", ["local", "celery"])


@both
@in_loop
async def test_execute_async_is_execute(backend: str, graflow_settings: Settings) -> None:
    seen: list[EventRecord] = []
    result, context = await executed(pair(), backend, graflow_settings, ret_context=True, progress=seen.append)
    assert result == 2
    assert context.get_result("one") == 1
    assert names(seen) == PAIR_EVENTS
    with workflow("broken") as wf:
        wf.add(broken)
    with pytest.raises(LookupError, match="nothing there"):
        await executed(wf, backend, graflow_settings)


@both
@in_loop
async def test_a_timeout_ends_the_run(backend: str, graflow_settings: Settings, tmp_path: Path) -> None:
    asyncio.get_running_loop().call_later(1.0, (tmp_path / "open").touch)
    seen: list[EventRecord] = []
    with pytest.raises(RunTimeoutError, match=r"did not end within 0\.5 s"):
        await executed(slow(tmp_path), backend, graflow_settings, timeout=0.5, progress=seen.append)
    (tmp_path / "open").touch()
    if backend == "celery":
        assert recent_runs(1, graflow_settings)[0].status is RunStatus.CANCELLED
    else:
        assert names(seen)[-1] == "run_cancelled"


@both
@in_loop
async def test_cancelling_the_caller_cancels_the_run(backend: str, graflow_settings: Settings, tmp_path: Path) -> None:
    seen: list[EventRecord] = []

    @task
    async def rests(notes: str) -> None:
        note(notes, "began")
        try:
            await asyncio.sleep(1.5)
        except asyncio.CancelledError:
            note(notes, "cancelled")
            raise

    with workflow("cancelled") as wf:
        rests(task_id="resting", notes=str(tmp_path))
    executing = asyncio.ensure_future(executed(wf, backend, graflow_settings, progress=seen.append))
    await began(tmp_path)
    executing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await executing
    if backend == "celery":
        assert recent_runs(1, graflow_settings)[0].status is RunStatus.CANCELLED
    else:
        await until((tmp_path / "cancelled").exists, "the coroutine to be cancelled")


@in_loop
async def test_a_queue_without_a_worker_is_refused(graflow_settings: Settings) -> None:
    with workflow("no worker") as wf:
        wf.add(task(id="waits", queue="nobody consumes this either")(one.func))
    with pytest.raises(NoWorkerError):
        await wf.execute_async(backend="celery", settings=graflow_settings)


@in_loop
async def test_a_thousand_local_runs_share_a_few_threads() -> None:
    most = 0

    def count(record: EventRecord) -> None:
        nonlocal most
        most = max(most, threading.active_count())

    before = threading.active_count()
    results = await asyncio.gather(*(pair().execute_async(progress=count) for _ in range(MANY)))
    assert results == [2] * MANY
    assert most <= before + 33


@in_loop
async def test_runs_inside_of_runs_do_not_wait_for_each_others_threads() -> None:
    @task
    def outer() -> int:
        result: int = asyncio.run(pair().execute_async())
        return result

    @task
    async def async_outer() -> int:
        result: int = await pair().execute_async()
        return result

    with workflow("outer") as wf:
        outer | async_outer
    async with asyncio.timeout(60):
        results = await asyncio.gather(*(wf.execute_async() for _ in range(100)))
    assert results == [{"outer": 2, "async_outer": 2}] * 100


@in_loop
async def test_a_run_that_waits_for_a_person_is_not_waited_for(graflow_settings: Settings) -> None:
    @task(inject_context=True)
    def asks(context: TaskExecutionContext) -> None:
        context.request_approval("Go on?", timeout=0.2)

    with workflow("asking") as wf:
        wf.add(asks)
    run = wf.submit(settings=graflow_settings)
    async with asyncio.timeout(30):
        with pytest.raises(RunFailedError, match="waits for a person"):
            await run
        assert names([record async for record in run.aevents()])[-1] == "run_waiting"
        assert await wf.execute_async() is None
        assert await wf.execute_async(backend="celery", settings=graflow_settings) is None
    run.cancel()
