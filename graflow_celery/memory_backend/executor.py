"""Threads: where nodes run when they run here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from graflow_celery.core.commands import CloseBarrier, Command, DispatchNode, OpenGroup
from graflow_celery.core.plan import Plan
from graflow_celery.ports import RunRef


class LocalCalls(Protocol):
    """What the executor calls back: run an attempt, close a barrier."""

    def run_attempt(self, run: RunRef, plan: Plan, node: str, attempt: int) -> None: ...

    def close_barrier(self, run: RunRef, plan: Plan, group: str) -> None: ...


class ThreadExecutor:
    """See :class:`graflow_celery.ports.Executor`. Close it when the run has ended."""

    fires_barriers = False

    def __init__(self, calls: LocalCalls, threads: int) -> None:
        self.crash: BaseException | None = None
        self.crashed: Callable[[], None] = _nothing
        self._calls = calls
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="graflow")
        self._closing = threading.Event()

    def send(self, run: RunRef, plan: Plan, commands: Sequence[Command]) -> None:
        for command in commands:
            if isinstance(command, OpenGroup):
                for entry in plan[command.group].entries:
                    self.send(run, plan, [OpenGroup(entry) if plan[entry].is_group else DispatchNode(entry, 1)])
            elif not self._closing.is_set():
                self._pool.submit(self._carry_out, run, plan, command)

    def close(self) -> None:
        """Starts nothing more, and waits for what runs."""
        self._closing.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _carry_out(self, run: RunRef, plan: Plan, command: Command) -> None:
        try:
            if isinstance(command, DispatchNode):
                self._calls.run_attempt(run, plan, command.node, command.attempt)
            elif isinstance(command, CloseBarrier):
                self._calls.close_barrier(run, plan, command.group)
        except BaseException as error:
            self.crash = error
            self.crashed()
            raise


def _nothing() -> None:
    return None
