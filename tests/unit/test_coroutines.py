"""Coroutines of tasks share one event loop in one thread, and their own threads wait for them."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from graflow_celery import TaskExecutionContext, task, workflow
from graflow_celery.coroutines import CoroutineHost
from graflow_celery.errors import AsyncGeneratorError, TaskCancelledError, TaskError
from graflow_celery.testing import wait_until

REPOSITORY = Path(__file__).parents[2]
colour: contextvars.ContextVar[str] = contextvars.ContextVar("colour", default="none")


@pytest.fixture
def host() -> Iterator[CoroutineHost]:
    made = CoroutineHost()
    yield made
    made.close()


class SoftLimit(Exception):
    """As Celery's. Not an OSError: asyncio swallows one where it wakes its loop."""


class Attended:
    """A coroutine that waits for ever and notes what becomes of it."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.seen: list[str] = []

    async def wait(self) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.01)
            self.seen.append("cleaned up")
            raise


def test_the_value_or_the_error_is_the_outcome(host: CoroutineHost) -> None:
    async def divide(by: int) -> float:
        await asyncio.sleep(0)
        return 6 / by

    assert host.run(divide(2), "t", "o") == (3.0, None)
    _, error = host.run(divide(0), "t", "o")
    assert isinstance(error, ZeroDivisionError)


def test_many_threads_share_one_loop(host: CoroutineHost) -> None:
    async def meet() -> tuple[int, str]:
        await everyone.wait()
        return id(asyncio.get_running_loop()), threading.current_thread().name

    everyone = asyncio.Barrier(40)
    with ThreadPoolExecutor(40) as pool:
        outcomes = list(pool.map(lambda number: host.run(meet(), "t", str(number))[0], range(40)))
    assert len(set(outcomes)) == 1
    assert outcomes[0][1] == "graflow-coroutines"


def test_context_variables_flow_into_the_coroutine(host: CoroutineHost) -> None:
    async def see() -> str:
        return await asyncio.create_task(see_deeper())

    async def see_deeper() -> str:
        return colour.get()

    token = colour.set("blue")
    try:
        assert host.run(see(), "t", "o") == ("blue", None)
    finally:
        colour.reset(token)


def test_cancelling_by_owner_waits_for_the_clean_up(host: CoroutineHost) -> None:
    mine, other = Attended(), Attended()
    with ThreadPoolExecutor(2) as pool:
        outcome = pool.submit(host.run, mine.wait(), "t", "mine")
        others = pool.submit(host.run, other.wait(), "u", "other")
        assert mine.began.wait(5)
        assert other.began.wait(5)
        assert host.cancel("mine")
        _, error = outcome.result(5)
        assert isinstance(error, TaskCancelledError)
        assert error.task_id == "t"
        assert mine.seen == ["cleaned up"]
        assert not others.done()
        assert host.cancel("other")
        others.result(5)
    assert not host.cancel("mine")


def test_a_coroutine_that_cancels_itself_has_failed(host: CoroutineHost) -> None:
    async def give_up() -> None:
        raise asyncio.CancelledError

    _, error = host.run(give_up(), "t", "o")
    assert type(error) is TaskError
    assert "CancelledError" in str(error)


def test_a_system_exit_is_for_the_tasks_thread_and_not_for_the_loop(host: CoroutineHost) -> None:
    async def leave() -> None:
        sys.exit(3)

    async def stay() -> int:
        return 1

    _, error = host.run(leave(), "t", "o")
    assert isinstance(error, SystemExit)
    assert host.run(stay(), "t", "o") == (1, None)


@pytest.mark.parametrize("interruption", [SoftLimit, SystemExit])
def test_what_interrupts_the_wait_cancels_the_coroutine_first(
    host: CoroutineHost, interruption: type[BaseException]
) -> None:
    """As a soft time limit, or the SIGTERM with which Celery ends a process of its pool."""

    def interrupt(*_: Any) -> None:
        raise interruption("now")

    attended = Attended()
    previous = signal.signal(signal.SIGUSR1, interrupt)

    def send() -> None:
        attended.began.wait(5)
        os.kill(os.getpid(), signal.SIGUSR1)

    sender = threading.Thread(target=send)
    sender.start()
    try:
        if issubclass(interruption, Exception):
            assert isinstance(host.run(attended.wait(), "t", "o")[1], interruption)
        else:
            with pytest.raises(interruption):
                host.run(attended.wait(), "t", "o")
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, previous)
    assert attended.seen == ["cleaned up"]


# Python drops an exception that a signal's handler raises inside of a weak reference's callback, here as everywhere.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interruption_at_any_moment_leaves_the_loop_usable(host: CoroutineHost) -> None:
    """Signals arrive while the main thread starts a coroutine, waits for it, or takes its outcome."""

    async def short() -> int:
        await asyncio.sleep(0.0005)
        return 1

    def interrupt(*_: Any) -> None:
        raise SoftLimit

    previous = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        for number in range(400):
            coroutine = short()
            try:
                signal.setitimer(signal.ITIMER_REAL, (1 + number % 100) * 2e-5)
                _, error = host.run(coroutine, "t", "o")
                interrupted += isinstance(error, SoftLimit)
                signal.setitimer(signal.ITIMER_REAL, 0)
            except SoftLimit:  # it came before the call, or after it
                interrupted += 1
            coroutine.close()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert interrupted > 50
    assert host.run(short(), "t", "o") == (1, None)


def test_closing_cancels_what_runs_and_a_new_loop_serves_what_comes(host: CoroutineHost) -> None:
    async def one() -> int:
        return 1

    attended = Attended()
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(host.run, attended.wait(), "t", "o")
        assert attended.began.wait(5)
        host.close()
        assert isinstance(outcome.result(5)[1], TaskError)
    assert attended.seen == ["cleaned up"]
    assert host.run(one(), "t", "o") == (1, None)


def run_program(program: str) -> str:
    command = [sys.executable, "-X", "dev", "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def test_a_forked_child_has_a_loop_of_its_own() -> None:
    program = """
import asyncio, os, threading, warnings
from graflow_celery.coroutines import HOST

async def where():
    await asyncio.sleep(0)
    return os.getpid(), threading.active_count()

assert HOST.run(where(), "t", "o") == ((os.getpid(), 2), None)
warnings.simplefilter("ignore", DeprecationWarning)  # since Python 3.12: about threads and fork
child = os.fork()
if child == 0:
    os._exit(0 if HOST.run(where(), "t", "o") == ((os.getpid(), 2), None) else 1)
assert os.waitpid(child, 0)[1] == 0
assert HOST.run(where(), "t", "o")[1] is None
print("both")
"""
    assert run_program(program) == "both\n"


def test_greenlets_wait_without_blocking_their_hub() -> None:
    program = """
from gevent import monkey
monkey.patch_all()
import asyncio, time, gevent
from graflow_celery.coroutines import HOST

async def rest():
    await asyncio.sleep(0.2)
    return 1

ticks = []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.01)

ticking = gevent.spawn(tick)
began = time.monotonic()
waiting = [gevent.spawn(HOST.run, rest(), "t", str(number)) for number in range(50)]
gevent.joinall(waiting)
assert [greenlet.value for greenlet in waiting] == [(1, None)] * 50
assert time.monotonic() - began < 2, time.monotonic() - began
assert len(ticks) >= 5, ticks
ticking.kill()

async def forever():
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        ticks.append("cancelled")
        raise

killed = gevent.spawn(HOST.run, forever(), "t", "o")
gevent.sleep(0.05)
killed.kill()
assert ticks[-1] == "cancelled"
print("green")
"""
    assert run_program(program) == "green\n"


@task
async def number() -> int:
    await asyncio.sleep(0.001)
    return 5


@task(inject_context=True)
async def double(context: TaskExecutionContext, number: int) -> int:
    context.get_channel().set("seen", number)
    return 2 * number


def test_async_tasks_are_tasks_like_others() -> None:
    with workflow("mixed") as wf:

        @task
        def total(double: int, seen: int) -> int:
            return double + seen

        number >> double >> total
    assert wf.execute() == 15


class Callable:
    async def __call__(self) -> str:
        return "called"


async def add(left: int, right: int) -> int:
    return left + right


@pytest.mark.parametrize(
    ("func", "expected"),
    [(Callable(), "called"), (functools.partial(add, 1, right=2), 3), (lambda: add(3, 4), 7)],
    ids=["object", "partial", "lambda"],
)
def test_whatever_returns_a_coroutine_is_waited_for(func: Any, expected: object) -> None:
    with workflow("forms") as wf:
        wf.add(task(id="form")(func))
    assert wf.execute() == expected


def test_an_async_generator_is_refused_with_what_to_do() -> None:
    @task
    async def stream() -> AsyncIterator[int]:
        yield 1

    with workflow("stream") as wf:
        wf.add(stream)
    with pytest.raises(AsyncGeneratorError, match=r"Task 'stream': .*async generator.*Return a list"):
        wf.execute()


def test_a_local_run_that_times_out_cancels_its_coroutines() -> None:
    attended = Attended()

    @task
    async def waits() -> None:
        await attended.wait()

    with workflow("too long") as wf:
        wf.add(waits)
    with pytest.raises(Exception, match=r"did not end within 0\.3 s"):
        wf.execute(timeout=0.3)
    wait_until(lambda: attended.seen == ["cleaned up"], description="the coroutine's clean up")
