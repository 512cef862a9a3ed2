"""Two bounded pools of threads that a whole process shares, however many runs it follows or executes at a time."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

CALLS = 8

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class SharedPools:
    """The pools of this process, made when first asked for. A forked child starts with none: threads do not fork."""

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Lets go of the pools without ending them."""
        self._lock = threading.Lock()
        self._made: dict[str, ThreadPoolExecutor] = {}

    def calls(self) -> ThreadPoolExecutor:
        """For blocking calls of the library's own: they are short."""
        return self._pool("graflow-call", CALLS)

    def nodes(self) -> ThreadPoolExecutor:
        """For the nodes of all runs that :meth:`WorkflowContext.execute_async` has going here."""
        return self._pool("graflow-node", min(32, (os.cpu_count() or 1) + 4))

    def _pool(self, name: str, size: int) -> ThreadPoolExecutor:
        with self._lock:
            if name not in self._made:
                self._made[name] = ThreadPoolExecutor(size, thread_name_prefix=name)
            return self._made[name]


POOLS = SharedPools()


async def call(function: Callable[Arguments, Result], /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
    """Calls a blocking function in a thread of the shared pool and returns what it returns, or raises what it raises.

    A caller that is cancelled goes on at once; the call ends in its thread.
    """

    def outcome() -> tuple[Result | None, StopIteration | None]:
        try:
            return function(*args, **kwargs), None
        except StopIteration as error:  # the one exception that a future cannot carry
            return None, error

    result, stopped = await asyncio.get_running_loop().run_in_executor(POOLS.calls(), outcome)
    if stopped is not None:
        raise RuntimeError("a call of the library raised StopIteration") from stopped
    return result  # type: ignore[return-value]  # None only where it raised
