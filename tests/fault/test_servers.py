"""The server goes away, comes back with or without its data, or is full: what runs, workers and clients make of it."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from graflow_celery import (
    GraflowWorkflowCanceledError,
    ParallelGroup,
    Run,
    RunStatus,
    Settings,
    StoreRefusedError,
    StoreUnavailableError,
    task,
    workflow,
)
from graflow_celery.core.events import BarrierReached, CancelRequested, NodeFailed, NodeSucceeded
from graflow_celery.core.scheduler import Scheduler
from graflow_celery.embedded import EmbeddedCluster, EmbeddedServer
from graflow_celery.errors import RunLostError, RunTimeoutError
from graflow_celery.ports import Attempt, Outcome, RunRef
from graflow_celery.settings import load_settings
from graflow_celery.testing import wait_until
from graflow_celery.workflows import WorkflowContext

pytestmark = pytest.mark.workers


@contextmanager
def cluster_of(data: Path | None, workers: int = 1, concurrency: int = 2, **settings: Any) -> Iterator[EmbeddedCluster]:
    """A cluster for the time of the block. Its workers end by force, so that none waits for a server that is away."""
    cluster = EmbeddedCluster(workers, concurrency, data_dir=data, **settings)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop(grace=0.0)


@task
def through(name: str, gate: str) -> str:
    """Notes that it runs, and waits until its gate is open."""
    with Path(gate, "ran").open("a") as ran:
        ran.write(f"{name}\n")
    wait_until(Path(gate, f"open-{name}").exists, timeout=60, description=f"the gate of {name}")
    return name


@task
def gathered(members: dict[str, str]) -> list[str]:
    return sorted(members.values())


def gated(gate: Path, names: str = "abcdef") -> WorkflowContext:
    """A group of tasks that wait at their gates, and one that gathers their results."""
    with workflow("gated") as wf:
        members = [through(task_id=f"m{name}", name=name, gate=str(gate)) for name in names]
        ParallelGroup(members, name="members", batch=1) >> gathered
    return wf


def ran(gate: Path) -> list[str]:
    return Path(gate, "ran").read_text().split() if Path(gate, "ran").exists() else []


def open_gates(gate: Path, names: str = "abcdef") -> None:
    for name in names:
        Path(gate, f"open-{name}").touch()


@contextmanager
def waiting(wait: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Somebody who waits in a thread of its own meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(wait)


def started_once(run: Run) -> bool:
    """Whether every node began once, as its event log has it."""
    begun = [record["node"] for record in run.events() if record["event"] == "node_started"]
    return len(begun) == len(set(begun))


@pytest.mark.parametrize("client", ["wait", "await"])
def test_a_run_goes_on_when_the_server_comes_back_with_its_data(
    tmp_path: Path, client: str, caplog: pytest.LogCaptureFixture
) -> None:
    with cluster_of(tmp_path / "data") as cluster, caplog.at_level(logging.INFO, "graflow_celery"):
        run = gated(tmp_path).submit(settings=cluster.settings)
        wait = (lambda: run.wait(60) and run.result()) if client == "wait" else (lambda: asyncio.run(awaited(run)))
        with waiting(wait) as result:
            wait_until(lambda: len(ran(tmp_path)) == 2, description="two tasks to run, with others prefetched")
            running = ran(tmp_path)
            cluster.server.kill()
            open_gates(tmp_path, running[0])  # it ends while there is no server to tell
            wait_until(lambda: "does not serve" in caplog.text, description="the client to say that it is away")
            cluster.server.start()
            open_gates(tmp_path)
            assert result.result(60) == list("abcdef")
        assert sorted(ran(tmp_path)) == list("abcdef")
        assert started_once(run)
        assert cluster.workers[0].process.running
        log = cluster.workers[0].process.output()
        assert re.search(r"connected again: of \d messages \d went back", log)
        assert caplog.text.count("does not serve") == caplog.text.count("answers again") == 1
        assert unacknowledged(cluster.settings) == 0


async def awaited(run: Run) -> Any:
    return await asyncio.wait_for(_result(run), 60)


async def _result(run: Run) -> Any:
    return await run


def unacknowledged(settings: Settings) -> int:
    """How many messages the broker still has, delivered or not; given a moment to take acknowledgements in."""
    with redis.Redis.from_url(settings.redis_url) as client:
        count: Callable[[], Any] = lambda: client.hlen("unacked") + client.llen("celery")  # noqa: E731
        wait_until(lambda: count() == 0, description="all messages to be acknowledged")
        return int(count())


@pytest.mark.parametrize("client", ["wait", "await", "events"])
def test_a_client_gives_up_after_reconnect_timeout_and_the_run_can_be_waited_for_again(
    tmp_path: Path, client: str
) -> None:
    with cluster_of(tmp_path / "data") as cluster:
        settings = cluster.settings.model_copy(update={"reconnect_timeout": 2.0})
        run = gated(tmp_path, "a").submit(settings=settings)
        waits: dict[str, Callable[[], Any]] = {
            "wait": run.wait,
            "await": lambda: asyncio.run(awaited(run)),
            "events": lambda: list(run.events(follow=True)),
        }
        with waiting(waits[client]) as result:
            wait_until(lambda: ran(tmp_path), description="the task to run")
            cluster.server.kill()
            with pytest.raises(StoreUnavailableError) as raised:
                result.result(20)
        assert f"Nothing of run {run.id} is lost if it comes back with its data" in str(raised.value)
        assert f"graflow-celery watch {run.id}" in str(raised.value)
        cluster.server.start()
        open_gates(tmp_path)
        assert Run.get(run.id, cluster.settings).wait(30) is RunStatus.SUCCEEDED


def test_a_limit_of_the_wait_comes_before_reconnect_timeout(tmp_path: Path) -> None:
    with cluster_of(tmp_path / "data") as cluster:
        run = gated(tmp_path, "a").submit(settings=cluster.settings)
        cluster.server.kill()
        started = time.monotonic()
        with pytest.raises(RunTimeoutError, match="No server answers"):
            run.wait(3.0)
        assert time.monotonic() - started < 8.0


@pytest.mark.parametrize("client", ["wait", "await", "events"])
def test_a_run_whose_state_is_gone_is_told_of_within_seconds_and_does_not_half_exist(
    tmp_path: Path, client: str
) -> None:
    with cluster_of(None) as cluster:
        run = gated(tmp_path, "ab").submit(settings=cluster.settings)
        waits: dict[str, Callable[[], Any]] = {
            "wait": run.wait,
            "await": lambda: asyncio.run(awaited(run)),
            "events": lambda: list(run.events(follow=True)),
        }
        with waiting(waits[client]) as result:
            wait_until(lambda: len(ran(tmp_path)) == 2, description="both tasks to run")
            cluster.server.kill()
            cluster.server.start()
            back = time.monotonic()
            with pytest.raises(RunLostError, match=f"state of run {run.id} is gone"):
                result.result(20)
            assert time.monotonic() - back < 10.0
        open_gates(tmp_path)
        worker = cluster.workers[0].process
        wait_until(lambda: worker.output().count("state is gone") >= 2, description="the outcomes to be dropped")
        with redis.Redis.from_url(cluster.settings.redis_url) as client_:
            assert list(client_.scan_iter(f"graflow:{{{run.id}}}*")) == []
        assert gated(tmp_path, "ab").execute(backend="celery", settings=cluster.settings, timeout=30) == ["a", "b"]


def test_a_flush_is_told_of_too(tmp_path: Path) -> None:
    with cluster_of(None) as cluster:
        run = gated(tmp_path, "a").submit(settings=cluster.settings)
        with waiting(run.wait) as result:
            wait_until(lambda: ran(tmp_path), description="the task to run")
            with redis.Redis.from_url(cluster.settings.redis_url) as client:
                client.flushall()
            with pytest.raises(RunLostError):
                result.result(10)


def full(client: Any, refuses: bool) -> None:
    client.config_set("maxmemory", "1mb" if refuses else "0")


def cannot_save(client: Any, refuses: bool) -> None:
    """A directory where the snapshot has to go: renaming fails, and writes are refused until a snapshot succeeds."""
    snapshot = Path(client.config_get("dir")["dir"], client.config_get("dbfilename")["dbfilename"])
    if refuses:
        snapshot.mkdir()
        client.config_set("save", "3600 1000000")
    else:
        snapshot.rmdir()
    client.bgsave()
    wanted = "err" if refuses else "ok"
    saved = lambda: client.info("persistence")["rdb_last_bgsave_status"] == wanted  # noqa: E731
    wait_until(saved, description=f"a snapshot that ends with {wanted}")


def replica(client: Any, refuses: bool) -> None:
    client.execute_command("REPLICAOF", *(("127.0.0.1", 1) if refuses else ("NO", "ONE")))


REFUSALS: dict[str, tuple[Callable[[Any, bool], None], str]] = {
    "full": (full, "OOM"),
    "cannot save": (cannot_save, "MISCONF"),
    "replica": (replica, "READONLY"),
}


def refuse(settings: Settings, why: str, refuses: bool) -> None:
    """Has the server refuse to be written to, or take writes again."""
    with redis.Redis.from_url(settings.redis_url, decode_responses=True) as client:
        REFUSALS[why][0](client, refuses)


def test_a_submit_to_a_full_server_says_so(tmp_path: Path) -> None:
    with cluster_of(None) as cluster:
        refuse(cluster.settings, "full", True)
        with pytest.raises(StoreRefusedError, match=r"full: its maxmemory of 1\.00M is reached.*CONFIG SET maxmemory"):
            gated(tmp_path, "a").submit(settings=cluster.settings)
        refuse(cluster.settings, "full", False)
        with redis.Redis.from_url(cluster.settings.redis_url) as client:
            assert client.zcard("graflow:runs") == 0


@pytest.mark.parametrize(
    ("why", "client"), [("full", "wait"), ("full", "await"), ("cannot save", "wait"), ("replica", "wait")]
)
def test_a_run_on_a_server_that_refuses_waits_says_why_and_goes_on(
    tmp_path: Path, why: str, client: str, caplog: pytest.LogCaptureFixture
) -> None:
    with cluster_of(tmp_path / "data") as cluster:
        run = gated(tmp_path).submit(settings=cluster.settings)
        wait = (lambda: run.wait(60) and run.result()) if client == "wait" else (lambda: asyncio.run(awaited(run)))
        with waiting(wait) as result:
            wait_until(lambda: len(ran(tmp_path)) == 2, description="two tasks to run")
            before = contents(cluster.settings, run)
            refuse(cluster.settings, why, True)
            open_gates(tmp_path)
            said = f"run {run.id} waits: The server at .*\\({REFUSALS[why][1]}"
            wait_until(lambda: re.search(said, caplog.text), description="the client to say why it waits")
            worker = cluster.workers[0].process
            wait_until(lambda: f"({REFUSALS[why][1]}" in worker.output(), description="the worker to say so")
            assert contents(cluster.settings, run) == before
            assert f"({REFUSALS[why][1]}" in run.obstacle()
            refuse(cluster.settings, why, False)
            assert result.result(60) == list("abcdef")
        assert sorted(ran(tmp_path)) == list("abcdef")
        assert started_once(run)
        assert worker.running


def test_a_worker_that_starts_while_the_server_is_full_works_when_it_is_not(tmp_path: Path) -> None:
    with cluster_of(None) as cluster:
        [worker] = cluster.workers
        worker.kill()
        open_gates(tmp_path)
        run = gated(tmp_path).submit(settings=cluster.settings)
        refuse(cluster.settings, "full", True)
        before = worker.process.output().count("command not allowed when used memory")
        worker.start()
        refused = lambda: worker.process.output().count("command not allowed when used memory") > before  # noqa: E731
        wait_until(refused, timeout=20, description="the worker to be refused")
        refuse(cluster.settings, "full", False)
        assert run.wait(30) is RunStatus.SUCCEEDED


def contents(settings: Settings, run: Run) -> dict[bytes, Any]:
    """Every key of a run with its content."""
    with redis.Redis.from_url(settings.redis_url) as client:
        return {key: client.dump(key) for key in client.scan_iter(f"graflow:{{{run.id}}}*")}


@pytest.mark.parametrize("why", REFUSALS)
def test_what_is_refused_changed_nothing(why: str) -> None:
    with EmbeddedServer() as server:
        settings = load_settings(redis_url=server.url)
        with workflow("refused") as wf:
            ParallelGroup([gathered(task_id=name, members={}) for name in "ab"], name="g", timeout=60) >> gathered
        run = wf.submit(settings=settings)
        store, plan, scheduler = run._runtime.store, run.plan, Scheduler()
        reference = RunRef(run.id, run.graph_hash)
        steps: dict[str, Callable[[], object]] = {
            "begin": lambda: store.begin(Attempt(reference, plan, "a", 1, "here"), ["g"], []),
            "commit": lambda: store.commit(reference, scheduler.decide(plan, NodeSucceeded("a", 1)), Outcome(1)),
            "retry": lambda: store.commit(reference, scheduler.decide(plan, NodeFailed("b", 1, "broke"))),
            "barrier": lambda: store.commit(reference, scheduler.decide(plan, BarrierReached("g", None))),
            "end": lambda: store.commit(reference, scheduler.end(CancelRequested("enough"))),
            "channel": lambda: run._runtime.channel(run.id).append("list", 1),
        }
        before = contents(settings, run)
        refuse(settings, why, True)
        for name, step in steps.items():
            with pytest.raises(StoreRefusedError, match=REFUSALS[why][1]):
                step()
            assert contents(settings, run) == before, name
        refuse(settings, why, False)
        assert store.begin(Attempt(reference, plan, "a", 1, "here"), ["g"], []) is not None
        assert run.cancel()


@pytest.mark.parametrize("client", ["wait", "await"])
def test_a_client_says_within_five_seconds_that_all_workers_are_gone(
    tmp_path: Path, client: str, caplog: pytest.LogCaptureFixture
) -> None:
    with cluster_of(None) as cluster:
        open_gates(tmp_path, "b")
        run = gated(tmp_path, "ab").submit(settings=cluster.settings)
        wait = run.wait if client == "wait" else lambda: asyncio.run(awaited(run))
        with waiting(wait) as result:
            wait_until(lambda: len(ran(tmp_path)) == 2, description="both tasks to run")
            cluster.workers[0].kill()
            said = f"run {run.id} waits: No live worker consumes queue 'celery'"
            wait_until(lambda: said in caplog.text, timeout=5.0, description="the client to say that no worker is left")
            assert not result.done()
            with pytest.raises(RunTimeoutError):
                run.wait(0.5)
            run.cancel()
            if client == "wait":
                assert result.result(10) is RunStatus.CANCELLED
            else:
                with pytest.raises(GraflowWorkflowCanceledError):
                    result.result(10)
