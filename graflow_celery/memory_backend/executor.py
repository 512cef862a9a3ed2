"""Threads: where nodes run when they run here."""

from __future__ import annotations

import functools
import heapq
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor as Pool
from contextlib import contextmanager
from typing import Any, Protocol

from graflow_celery.core.commands import CloseBarrier, Command, DispatchNode, OpenGroup, OpenMembers
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.memory_backend.timers import Timers
from graflow_celery.ports import Members, RunRef


class LocalCalls(Protocol):
    """What the executor calls back: run an attempt, close a barrier, carry out a command whose time has come."""

    def run_attempt(self, run: RunRef, plan: Plan, node: str, attempt: int) -> None: ...

    def close_barrier(self, run: RunRef, plan: Plan, group: str) -> None: ...

    def carry_out(self, run: RunRef, plan: Plan, commands: Sequence[Command]) -> None: ...


class ThreadExecutor:
    """See :class:`graflow_celery.ports.Executor`. Close it when the run has ended.

    Args:
        pool: whose threads are used; it may serve other runs too, and is not shut down here.
        threads: how many of them this run takes at the most.
        rank: which of the nodes that are ready goes first, the smallest.
    """

    def __init__(
        self,
        calls: LocalCalls,
        pool: Pool,
        threads: int,
        timers: Timers,
        rank: Callable[[Plan, str], Any],
    ) -> None:
        self.crash: BaseException | None = None
        self.crashed: Callable[[], None] = _nothing
        self.rested: Callable[[], None] = _nothing
        self._calls = calls
        self._pool = pool
        self._threads = threads
        self._timers = timers
        self._rank = rank
        self._ready: list[tuple[Any, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._working = 0
        self._delayed = 0
        self._away = 0
        self._idle: list[Callable[[], None]] = []
        self._held: list[tuple[RunRef, Plan, Sequence[Command]]] = []
        self._changed = threading.Condition()
        self._closing = False
        #: The threads that are at the end of a call, and whether each has something to go on with.
        self._ending: dict[int, bool] = {}

    def send(self, run: RunRef, plan: Plan, commands: Sequence[Command], delay: float = 0.0) -> None:
        if delay:
            with self._changed:
                self._delayed += _nodes(commands)
            self._timers.after(delay, lambda: self._resume(run, plan, commands))
            return
        if len(commands) > 1 or not isinstance(commands[0], DispatchNode):
            commands = [opened for command in commands for opened in _opened(plan, command)]
        self._enqueue(run, plan, commands)

    @contextmanager
    def from_outside(self) -> Iterator[None]:
        """For a thread that goes on with other things after it sent something: a task's code, say."""
        thread = threading.get_ident()
        before = self._ending.pop(thread, None)
        try:
            yield
        finally:
            if before is not None:
                self._ending[thread] = before

    def share(self, run: RunRef, plan: Plan, members: Members) -> None:
        group = Place.of(plan, members.group)
        numbers = range(members.first, members.first + members.count)
        self.send(run, plan, [DispatchNode(group.start(number), plan.first, members.graph) for number in numbers])

    def hold(self) -> None:
        """Says that work of the run goes on outside of the pool; `come_back` says that it is over."""
        with self._changed:
            self._away += 1

    def come_back(self, call: Callable[[], None]) -> None:
        """Has a thread of the pool call ``call``, before other work and also while the executor is closing."""
        with self._changed:
            self._away -= 1
            self._queue((False, 0), call)
            self._staff(1)

    def stop(self, idle: Callable[[], None]) -> None:
        """Starts nothing more. ``idle`` is called, from any thread, when nothing of the run works any more."""
        with self._changed:
            self._closing = True
            self._ready.clear()
            self._idle.append(idle)
        self._tell_idle()

    def close(self) -> None:
        """Starts nothing more, and waits for what runs."""
        over = threading.Event()
        self.stop(over.set)
        over.wait()

    def reopen(self, pool: Pool) -> None:
        """Goes on, in the threads of ``pool``, with what came while it was closed."""
        with self._changed:
            self._pool, self._closing = pool, False
            held, self._held = self._held, []
            for run, plan, commands in held:
                self._enqueue(run, plan, commands)

    def _resume(self, run: RunRef, plan: Plan, commands: Sequence[Command]) -> None:
        """What was delayed takes a thread of the pool like everything else."""
        with self._changed:
            self._enqueue(run, plan, commands)
            self._delayed -= _nodes(commands)

    def _enqueue(self, run: RunRef, plan: Plan, commands: Sequence[Command]) -> None:
        """What is ready at the same time is queued as a whole before a thread takes the first of it by its rank."""
        with self._changed:
            if self._closing:
                self._held.append((run, plan, commands))
                return
            for command in commands:
                # Barriers and timers go before nodes: they take no time, and others wait for them.
                order = (True, self._rank(plan, command.node)) if isinstance(command, DispatchNode) else (False, 0)
                self._queue(order, functools.partial(self._carry_out, run, plan, command))
            self._staff(len(commands) - self._stays(len(commands)))

    def _queue(self, order: Any, call: Callable[[], None]) -> None:
        heapq.heappush(self._ready, (order, next(self._numbers), call))

    def _stays(self, count: int) -> int:
        """1 if the thread that is here takes one of ``count`` nodes by itself: it has nothing else to go on with."""
        thread = threading.get_ident()
        if not count or self._ending.get(thread, True):
            return 0
        self._ending[thread] = True
        return 1

    def _staff(self, count: int) -> None:
        for _ in range(min(count, self._threads - self._working)):
            self._working += 1
            self._pool.submit(self._work)

    def _work(self) -> None:
        rests = False
        thread = threading.get_ident()
        while True:
            with self._changed:
                if not self._ready:
                    self._working -= 1
                    self._ending.pop(thread, None)
                    rests = not self._working and not self._delayed and not self._away
                    break
                _, _, call = heapq.heappop(self._ready)
                self._ending[thread] = False
            try:
                call()
            except BaseException as error:
                self.crash = error
                self.crashed()
                with self._changed:
                    self._working -= 1
                    self._ending.pop(thread, None)
                self._tell_idle()
                raise
        self._tell_idle()
        if rests:
            self.rested()

    def _tell_idle(self) -> None:
        with self._changed:
            if self._working or self._away:
                return
            calls, self._idle = self._idle, []
        for call in calls:
            call()

    def _carry_out(self, run: RunRef, plan: Plan, command: Command) -> None:
        match command:
            case DispatchNode(node, attempt):
                self._calls.run_attempt(run, plan, node, attempt)
            case CloseBarrier(group):
                self._calls.close_barrier(run, plan, group)
            case _:
                self._calls.carry_out(run, plan, [command])


def _opened(plan: Plan, command: Command) -> Iterable[Command]:
    """The members that a command opens, or the command itself."""
    match command:
        case OpenGroup(group, graph):
            place = Place.of(plan, group)
            keys = [place.inside(entry).key for entry in place.spec.entries if not plan[entry].is_group]
            return [DispatchNode(key, 1, graph) for key in keys]
        case OpenMembers(group, first, count, _, graph):
            prefix, suffix = Place.of(plan, group).members
            return [DispatchNode(f"{prefix}{index}{suffix}", 1, graph) for index in range(first, first + count)]
        case _:
            return (command,)


def _nodes(commands: Sequence[Command]) -> int:
    return sum(isinstance(command, DispatchNode) for command in commands)


def _nothing() -> None:
    return None
