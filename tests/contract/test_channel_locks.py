"""The lock of a channel's key has one holder at a time: among threads, processes and workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from graflow_celery import ParallelGroup, Settings, TaskExecutionContext, task, workflow
from graflow_celery.celery_backend.app import create_app
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.errors import ChannelLockLostError, ChannelLockTimeoutError
from graflow_celery.memory_backend.channel import MemoryChannel
from graflow_celery.ports import Channel
from graflow_celery.redis_backend.channel import RedisChannel
from graflow_celery.redis_backend.keys import lock_keys
from graflow_celery.testing import wait_until
from tests.contract.conftest import Execute

#: What other processes run, with a run's id as argument.
OPEN = """
import sys
from graflow_celery.celery_backend.app import create_app
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.settings import load_settings

settings = load_settings()
channel = Runtime(create_app(settings), settings).channel(sys.argv[1])
"""
HOLD = """
with channel.lock("key", timeout=30):
    print("held", flush=True)
    sys.stdin.read()
"""
ADD = """
for _ in range(50):
    with channel.lock("n", timeout=60):
        channel.set("n", channel.get("n", 0) + 1)
"""


@pytest.fixture
def run_id(request: pytest.FixtureRequest) -> str:
    return f"locks-{request.node.name}"


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.workers)])
def channel(request: pytest.FixtureRequest, run_id: str) -> Channel:
    if request.param == "memory":
        return MemoryChannel()
    return runtime_of(request.getfixturevalue("graflow_settings")).channel(run_id)


def runtime_of(settings: Settings) -> Runtime:
    return Runtime(create_app(settings), settings)


@contextmanager
def in_thread(work: Callable[[], None]) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=work)
    thread.start()
    yield thread
    thread.join()


def test_threads_that_read_and_write_under_the_lock_lose_nothing(channel: Channel) -> None:
    def work() -> None:
        for _ in range(20):
            with channel.lock("n", timeout=60):
                channel.set("n", channel.get("n", 0) + 1)

    with ExitStack() as threads:
        for _ in range(5):
            threads.enter_context(in_thread(work))
    assert channel.get("n") == 100
    assert channel.delete("n")


def test_a_lock_that_is_held_is_waited_for_no_longer_than_asked(channel: Channel) -> None:
    for timeout in (0.2, 0, -1):
        with (
            channel.lock("key"),
            pytest.raises(ChannelLockTimeoutError, match="'key'") as caught,
            channel.lock("key", timeout=timeout),
        ):
            raise AssertionError("two hold it")
        assert caught.value == ChannelLockTimeoutError("key", timeout)
    with channel.lock("key", timeout=0):
        pass


def test_keys_have_locks_of_their_own_and_nobody_has_to_take_them(channel: Channel) -> None:
    with channel.lock("a"), channel.lock("b", timeout=0), channel.lock("a:b{c} ä", timeout=0):
        channel.set("a", 1)
        assert channel.get("a") == 1
        assert channel.keys() == ["a"]
        channel.clear()
        with pytest.raises(ChannelLockTimeoutError), channel.lock("a", timeout=0):
            raise AssertionError("two hold it")


def test_an_error_under_the_lock_frees_it(channel: Channel) -> None:
    with pytest.raises(ZeroDivisionError), channel.lock("key"):
        _ = 1 / 0
    with channel.lock("key", timeout=0):
        pass


def test_who_waits_is_woken_when_the_lock_is_freed(channel: Channel) -> None:
    got: list[str] = []
    waiting = threading.Barrier(4)

    def wait(name: str) -> None:
        waiting.wait()
        with channel.lock("key", timeout=30):
            got.append(name)

    with ExitStack() as threads:
        with channel.lock("key"):
            for name in "abc":
                threads.enter_context(in_thread(lambda name=name: wait(name)))  # type: ignore[misc]
            waiting.wait()
            assert got == []
        wait_until(lambda: sorted(got) == ["a", "b", "c"], timeout=3, description="all three to have had it")


@task(inject_context=True)
def count(context: TaskExecutionContext) -> None:
    channel = context.get_channel()
    for _ in range(10):
        with channel.lock("n", timeout=60):
            channel.set("n", channel.get("n", 0) + 1)


@task(inject_context=True)
def counted(context: TaskExecutionContext) -> int:
    return int(context.get_channel().get("n"))


def test_tasks_of_a_run_exclude_each_other(execute: Execute) -> None:
    with workflow("counting") as wf:
        ParallelGroup([count(task_id=f"count-{index}") for index in range(4)]) >> counted
    assert execute(wf) == 40


@contextmanager
def process(program: str, run_id: str, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that has the channel; it ends when its input does."""
    arguments = [sys.executable, "-c", OPEN + program, run_id]
    with subprocess.Popen(arguments, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


@pytest.fixture
def program_environment(graflow_environment: dict[str, str]) -> dict[str, str]:
    return {**os.environ, **graflow_environment}


@pytest.mark.workers
def test_processes_that_read_and_write_under_the_lock_lose_nothing(
    graflow_settings: Settings, program_environment: dict[str, str], run_id: str
) -> None:
    with process(ADD, run_id, program_environment) as one, process(ADD, run_id, program_environment) as other:
        assert [one.wait(60), other.wait(60)] == [0, 0]
    assert runtime_of(graflow_settings).channel(run_id).get("n") == 100


@pytest.mark.workers
def test_a_lock_that_a_process_holds_is_free_after_its_death(
    graflow_settings: Settings, program_environment: dict[str, str], run_id: str
) -> None:
    channel = runtime_of(graflow_settings).channel(run_id)
    with process(HOLD, run_id, program_environment) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ChannelLockTimeoutError), channel.lock("key", timeout=0.2):
            raise AssertionError("two hold it")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with channel.lock("key", timeout=30):
            pass


def brief(runtime: Runtime, run_id: str) -> RedisChannel:
    """A channel whose locks have a lease of 0.3 s."""
    key = runtime.keys.run(run_id).channel
    return RedisChannel(runtime.client, runtime.scripts, key, runtime.values, 3600, lease=0.3)


@pytest.mark.workers
def test_a_holder_that_lives_keeps_its_lock_beyond_the_lease(graflow_settings: Settings, run_id: str) -> None:
    channel = brief(runtime_of(graflow_settings), run_id)
    with (
        channel.lock("key"),
        pytest.raises(ChannelLockTimeoutError),
        channel.lock("key", timeout=1.5),
    ):
        raise AssertionError("two hold it")


@pytest.mark.workers
def test_a_holder_that_lost_its_lock_is_told_and_frees_nobody_elses(graflow_settings: Settings, run_id: str) -> None:
    runtime = runtime_of(graflow_settings)
    channel = brief(runtime, run_id)
    lock, _ = lock_keys(runtime.keys.run(run_id).channel, "key")
    with pytest.raises(ChannelLockLostError, match="'key'"), channel.lock("key"):
        runtime.client.delete(lock)
    with pytest.raises(ChannelLockLostError), channel.lock("key"):
        runtime.client.set(lock, "another's", px=60_000)
    assert runtime.client.getdel(lock) == b"another's"
    with pytest.raises(ZeroDivisionError), channel.lock("key", timeout=0):
        _ = runtime.client.delete(lock) / 0


@pytest.mark.workers
def test_what_locks_leave_in_redis_expires(graflow_settings: Settings, run_id: str) -> None:
    runtime = runtime_of(graflow_settings)
    base = runtime.keys.run(run_id).channel
    with runtime.channel(run_id).lock("key"):
        held = list(runtime.client.scan_iter(f"{base}*"))
        assert held == [lock_keys(base, "key")[0].encode()]
        assert runtime.client.ttl(held[0]) > 0
    freed = list(runtime.client.scan_iter(f"{base}*"))
    assert freed == [lock_keys(base, "key")[1].encode()]
    assert runtime.client.ttl(freed[0]) > 0
