"""Threads: where nodes run when they run here."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor as Pool
from typing import Any, Protocol

from graflow_celery.core.commands import CloseBarrier, Command, DispatchNode, OpenGroup, OpenMembers
from graflow_celery.core.place import Place
from graflow_celery.core.plan import NodeSpec, Plan
from graflow_celery.memory_backend.timers import Timers
from graflow_celery.ports import RunRef


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

    fires_barriers = False

    def __init__(
        self,
        calls: LocalCalls,
        pool: Pool,
        threads: int,
        timers: Timers,
        rank: Callable[[NodeSpec], Any],
    ) -> None:
        self.crash: BaseException | None = None
        self.crashed: Callable[[], None] = _nothing
        self._calls = calls
        self._pool = pool
        self._threads = threads
        self._timers = timers
        self._rank = rank
        self._ready: list[tuple[Any, int, RunRef, Plan, Command]] = []
        self._numbers = itertools.count()
        self._working = 0
        self._changed = threading.Condition()
        self._closing = False

    def send(self, run: RunRef, plan: Plan, commands: Sequence[Command], delay: float = 0.0) -> None:
        if delay:
            self._timers.after(delay, lambda: self._resume(run, plan, commands))
            return
        for command in commands:
            match command:
                case OpenGroup(group, graph):
                    place = Place.of(plan, group)
                    tasks = [place.inside(entry) for entry in place.spec.entries if not plan[entry].is_group]
                    self.send(run, plan, [DispatchNode(task.key, 1, graph) for task in tasks])
                case OpenMembers(group, first, count, _, graph):
                    prefix, suffix = Place.of(plan, group).members
                    keys = (f"{prefix}{index}{suffix}" for index in range(first, first + count))
                    self.send(run, plan, [DispatchNode(key, 1, graph) for key in keys])
                case _:
                    self._enqueue(run, plan, command)

    def close(self) -> None:
        """Starts nothing more, and waits for what runs."""
        with self._changed:
            self._closing = True
            self._ready.clear()
            self._changed.wait_for(lambda: not self._working)

    def _resume(self, run: RunRef, plan: Plan, commands: Sequence[Command]) -> None:
        """What was delayed takes a thread of the pool like everything else."""
        for command in commands:
            self._enqueue(run, plan, command)

    def _enqueue(self, run: RunRef, plan: Plan, command: Command) -> None:
        rank = self._rank(plan[command.node]) if isinstance(command, DispatchNode) else 0
        with self._changed:
            if self._closing:
                return
            # Barriers and timers go before nodes: they take no time, and others wait for them.
            order = (isinstance(command, DispatchNode), rank)
            heapq.heappush(self._ready, (order, next(self._numbers), run, plan, command))
            if self._working < self._threads:
                self._working += 1
                self._pool.submit(self._work)

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._ready:
                    self._working -= 1
                    self._changed.notify_all()
                    return
                _, _, run, plan, command = heapq.heappop(self._ready)
            try:
                self._carry_out(run, plan, command)
            except BaseException as error:
                with self._changed:
                    self._working -= 1
                    self._changed.notify_all()
                self.crash = error
                self.crashed()
                raise

    def _carry_out(self, run: RunRef, plan: Plan, command: Command) -> None:
        match command:
            case DispatchNode(node, attempt):
                self._calls.run_attempt(run, plan, node, attempt)
            case CloseBarrier(group):
                self._calls.close_barrier(run, plan, group)
            case _:
                self._calls.carry_out(run, plan, [command])


def _nothing() -> None:
    return None
