"""Runs the coroutines of ``async def`` tasks: one event loop in one thread, shared by all tasks of a process.

In each of Celery's pools the task's own thread waits for the end of its coroutine (:meth:`CoroutineHost.run`). Whatever
interrupts the wait cancels the coroutine, and goes on once that has ended: the signal with which a prefork worker ends
a process (``revoke(terminate=True)``), a soft time limit, gevent's kill. A local run lets its thread go meanwhile
(:meth:`CoroutineHost.start`). What no signal reaches, :meth:`CoroutineHost.cancel` cancels: coroutines of a pool of
threads and of local runs.

Under gevent the thread is a greenlet, as all threads are there, and neither the loop nor the wait for it blocks the
hub. One thing is different: asyncio then sees its loop running in every greenlet, so a plain task that calls
``asyncio.run`` itself should become an ``async def`` task.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

from graflow_celery.errors import TaskCancelledError, TaskError

#: How long a coroutine that was cancelled because its thread has to go on may clean up, in seconds.
CANCEL_GRACE = 5.0

#: A signal that arrives at the moment in which a thread begins to wait does not end the wait. Its handler runs when the
#: thread looks up next, after so many seconds.
LOOK = 0.5

Outcome = tuple[Any, BaseException | None]
Done = Callable[[Any, BaseException | None], None]


class CoroutineHost:
    """An event loop in a thread of its own, started by the first coroutine. A forked child begins without it."""

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Lets go of the loop and its thread without ending them."""
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._calls: defaultdict[str, set[_Call]] = defaultdict(set)

    def run(self, coroutine: Coroutine[Any, Any, Any], task_id: str, owner: str) -> Outcome:
        """Runs a coroutine to its end while this thread waits, and returns its value, or what it raised.

        What it raised is a TaskCancelledError after :meth:`cancel`, a TaskError if it cancelled itself, and the
        exception that interrupted the wait, if one did (a soft time limit). One that is to end the thread or the
        process, as SystemExit, is raised instead of returned.

        Args:
            task_id: names the task in errors.
            owner: what :meth:`cancel` is to name.
        """
        call = _Call(coroutine, task_id, self._ended(owner))
        try:
            self._start(call, owner)
            call.wait()
        except BaseException as interruption:
            self._soon(call.cancel)
            call.wait(CANCEL_GRACE)
            if isinstance(interruption, Exception):
                return None, interruption
            raise
        return call.outcome

    def start(self, coroutine: Coroutine[Any, Any, Any], task_id: str, owner: str, done: Done) -> None:
        """Starts what :meth:`run` runs and calls ``done`` with the outcome, in the loop's thread: it must be quick."""
        ended = self._ended(owner)

        def tell(call: _Call) -> None:
            ended(call)
            done(*call.outcome)

        self._start(_Call(coroutine, task_id, tell), owner)

    def cancel(self, owner: str) -> bool:
        """Cancels the coroutines that run for ``owner``; False if there are none."""
        with self._lock:
            calls = list(self._calls.get(owner, ()))
        for call in calls:
            self._soon(call.cancel)
        return bool(calls)

    def close(self) -> None:
        """Ends the loop and its thread; what runs there is cancelled."""
        with self._lock:
            if self._loop is None or self._thread is None or self._stop is None:
                return
            self._loop.call_soon_threadsafe(self._stop.set)
            thread = self._thread
        thread.join(CANCEL_GRACE)

    def _start(self, call: _Call, owner: str) -> None:
        """Starts a coroutine in the context variables of this thread, which call_soon_threadsafe carries over."""
        with self._lock:
            self._calls[owner].add(call)
        self._soon(call.start)

    def _ended(self, owner: str) -> Callable[[_Call], None]:
        def drop(call: _Call) -> None:
            with self._lock:
                self._calls[owner].discard(call)
                if not self._calls[owner]:
                    del self._calls[owner]

        return drop

    def _soon(self, function: Callable[[], None]) -> None:
        with self._lock:
            if self._loop is None:
                runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
                loop, stop = runner.get_loop(), asyncio.Event()
                turn = (runner, loop, stop)
                thread = threading.Thread(target=self._turn, args=turn, name="graflow-coroutines", daemon=True)
                thread.start()
                self._thread, self._stop, self._loop = thread, stop, loop
            self._loop.call_soon_threadsafe(function)

    def _turn(self, runner: asyncio.Runner, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
        """The thread: turns the loop until it is stopped, or until something in it raises SystemExit."""
        try:
            runner.run(_wait_for(stop))
        finally:
            with self._lock:
                if self._loop is loop:
                    self._loop = None
            runner.close()


class _Call:
    """One coroutine on its way. A thread may wait for its end; all else is touched by the loop's thread alone.

    The wait is for a bare lock, which an exception from a signal's handler leaves as it is. It would not do so with a
    Condition or a Future: where it comes in at the wrong moment it leaves their inner lock held, and the loop's thread
    would block there for ever.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], task_id: str, ended: Callable[[_Call], None]) -> None:
        self.outcome: Outcome = (None, None)
        self._coroutine = coroutine
        self._task_id = task_id
        self._on_end = ended
        self._task: asyncio.Task[Outcome] | None = None
        self._revoked = False
        self._over = False
        self._latch = threading.Lock()
        self._latch.acquire()

    def wait(self, timeout: float | None = None) -> None:
        """Waits for the end, for ``timeout`` seconds at the most."""
        left = timeout
        while not self._over and (left is None or left > 0):
            part = LOOK if left is None else min(LOOK, left)
            self._latch.acquire(timeout=part)
            left = None if left is None else left - part

    def start(self) -> None:
        if not self._over:
            self._task = asyncio.get_running_loop().create_task(self._drive(), name=f"task {self._task_id}")
            self._task.add_done_callback(self._report)

    def cancel(self) -> None:
        if self._over:
            return
        self._revoked = True
        if self._task is not None:
            self._task.cancel()
        else:
            self._coroutine.close()
            self._end((None, self._cancelled()))

    async def _drive(self) -> Outcome:
        try:
            return await self._coroutine, None
        except (SystemExit, KeyboardInterrupt) as error:  # they are for the task's thread; here they would end the loop
            return None, error

    def _report(self, task: asyncio.Task[Outcome]) -> None:
        if task.cancelled():
            self._end((None, self._cancelled()))
        else:
            error = task.exception()
            self._end((None, error) if error is not None else task.result())

    def _end(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self._over = True
        self._on_end(self)
        self._latch.release()

    def _cancelled(self) -> TaskError:
        if self._revoked:
            return TaskCancelledError(self._task_id, "it was cancelled from outside while it ran")
        return TaskError(self._task_id, "its coroutine ended with CancelledError, which nobody asked for")


async def _wait_for(stop: asyncio.Event) -> None:
    await stop.wait()


HOST = CoroutineHost()
atexit.register(HOST.close)
