"""``async def`` tasks on workers of each of Celery's pools, and what a revoke means to them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from graflow_celery import ParallelGroup, Run, RunStatus, Settings, TaskExecutionContext, task, workflow
from graflow_celery.celery_backend.app import create_app
from graflow_celery.errors import TaskCancelledError
from graflow_celery.testing import embedded_cluster, wait_until

pytestmark = pytest.mark.workers

POOLS = ("prefork", "threads", "gevent", "solo")
MEMBERS = 8


@pytest.fixture(scope="module", params=POOLS)
def pool(request: pytest.FixtureRequest) -> Iterator[tuple[str, Settings]]:
    concurrency = 2 if request.param == "prefork" else MEMBERS
    with embedded_cluster(workers=1, concurrency=concurrency, arguments=["--pool", request.param]) as cluster:
        yield request.param, cluster.settings


def note(where: str, what: str) -> None:
    Path(where, what).touch()


@task
async def rests(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return threading.current_thread().name


@task
async def attended(notes: str) -> None:
    """Waits for ever and notes what becomes of it."""
    note(notes, "began")
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.sleep(0.01)
        note(notes, "cleaned up")
        raise


@task(inject_context=True)
async def add(context: TaskExecutionContext, amount: int) -> Any:
    await asyncio.sleep(0)
    return context.get_channel().atomic_add("sum", amount)


def test_members_rest_at_the_same_time(pool: tuple[str, Settings]) -> None:
    name, settings = pool
    with workflow("resting") as wf:
        members = [rests(task_id=f"rest{number}", seconds=0.5) for number in range(MEMBERS)]
        ParallelGroup(members, name="resting")
    began = time.monotonic()
    result = wf.execute(backend="celery", settings=settings, timeout=60)
    assert set(result.values()) == {"graflow-coroutines"}
    if name in ("threads", "gevent"):
        assert time.monotonic() - began < 0.5 * MEMBERS


def test_async_members_and_the_channel(pool: tuple[str, Settings]) -> None:
    @task
    def read(sum: int) -> int:
        return sum

    with workflow("adding") as wf:
        ParallelGroup([add(task_id=f"add{number}", amount=number) for number in range(20)], name="adders") >> read
    assert wf.execute(backend="celery", settings=pool[1], timeout=60) == sum(range(20))


def test_a_revoke_is_a_cancelled_error_inside_of_the_coroutine(pool: tuple[str, Settings], tmp_path: Path) -> None:
    name, settings = pool
    if name == "solo":
        pytest.skip("a solo worker reads no command while it runs a task")
    with workflow("revoked") as wf:
        attended(task_id="attended", notes=str(tmp_path)) >> rests(task_id="after", seconds=0)
    run = wf.submit(settings=settings)
    wait_until((tmp_path / "began").exists, timeout=30, description="the coroutine to begin")
    app = create_app(settings)
    app.control.revoke(_held(app, "active", run), terminate=True)
    wait_until((tmp_path / "cleaned up").exists, timeout=30, description="the coroutine to clean up")
    assert run.wait(timeout=30) is RunStatus.FAILED
    with pytest.raises(TaskCancelledError, match="Task 'attended'"):
        run.result()
    events = [record["event"] for record in run.events() if record.get("node") == "attended"]
    assert events.count("node_started") == 1, "a revoked task is not run again"
    with workflow("after the revoke") as wf:
        rests(task_id="again", seconds=0)
    assert wf.execute(backend="celery", settings=settings, timeout=30) == "graflow-coroutines"


def test_a_soft_time_limit_cancels_the_coroutine(graflow_settings: Settings, tmp_path: Path) -> None:
    limited = task(id="limited", soft_time_limit=1)(attended.func)
    with workflow("limited") as wf:
        limited(task_id="slow", notes=str(tmp_path))
    with pytest.raises(SoftTimeLimitExceeded):
        wf.execute(backend="celery", settings=graflow_settings, timeout=30)
    assert (tmp_path / "cleaned up").exists()


def test_a_task_that_is_revoked_before_it_runs_fails_its_run(graflow_settings: Settings, tmp_path: Path) -> None:
    """Otherwise nothing would ever end the run: Celery throws the message away."""

    @task
    def gated(gate: str) -> None:
        wait_until(Path(gate, "open").exists, timeout=60, description="the gate to open")

    with workflow("occupied") as occupying:
        ParallelGroup([gated(task_id=f"gated{number}", gate=str(tmp_path)) for number in range(2)], name="gated")
    with workflow("waiting for a process") as wf:
        rests(task_id="later", seconds=0)
    app = create_app(graflow_settings)
    occupied = occupying.submit(settings=graflow_settings)
    wait_until(lambda: len(_held(app, "active", occupied)) == 2, timeout=30, description="all processes to be busy")
    run = wf.submit(settings=graflow_settings)
    waiting = wait_until(lambda: _held(app, "reserved", run), timeout=30, description="the message to be reserved")
    app.control.revoke(waiting, reply=True)
    (tmp_path / "open").touch()
    assert run.wait(timeout=30) is RunStatus.FAILED
    with pytest.raises(TaskCancelledError, match="revoked it before it ran"):
        run.result()
    assert occupied.wait(timeout=30) is RunStatus.SUCCEEDED


def _held(app: Celery, how: str, run: Run) -> list[str]:
    """The ids of a run's messages that workers hold: ``active`` or ``reserved``."""
    found = getattr(app.control.inspect(timeout=2), how)() or {}
    return [request["id"] for requests in found.values() for request in requests if request["args"][0] == run.id]
