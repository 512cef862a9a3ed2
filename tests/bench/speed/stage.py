"""The sides, with a server for each so that its statistics count one side alone, and two worker processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from types import ModuleType, TracebackType
from typing import Any

import psutil  # type: ignore[import-untyped]

from graflow_celery import Settings, WorkflowContext
from graflow_celery.embedded import EmbeddedCluster, EmbeddedServer
from graflow_celery.embedded.scratch import ScratchDirectory
from graflow_celery.redis_backend.client import connect
from graflow_celery.settings import celery_url
from tests.bench.processes import environment, running, wait_ready
from tests.bench.speed import flows
from tests.bench.speed.counts import Counts, Work, measure, measure_idle

PROCESSES = 2
TIMEOUT = 300
#: Seconds between beats where they are switched off, for what a benchmark lasts.
NEVER = 3600.0


class Side:
    """Workers that run all the time, and their server."""

    def __init__(self, name: str, server: Any, rest: Callable[[float], object], idle: float, pid: int) -> None:
        """
        Args:
            name: as rows call it.
            server: a client of its server.
            rest: waits, as a client does, for a task that runs for so many seconds.
            idle: how many seconds of that its idle counts are taken from.
            pid: that of its worker's main process.
        """
        self.name = name
        self.server = server
        self._rest = rest
        self._seconds = idle
        self._pid = pid

    @cached_property
    def idle(self) -> Counts:
        """What is counted while nothing happens: waiting, beats, the monitor."""
        return measure_idle(self._rest, self._seconds, self.server)

    def measured(self, work: Work) -> Counts:
        """One round, without what an idle period of the same length costs."""
        idle = self.idle
        return measure(work, self.server).less(idle)

    def processes(self) -> list[int]:
        """The worker's processes: the main one first, then what it started."""
        main = psutil.Process(self._pid)
        return [main.pid, *(child.pid for child in main.children(recursive=True))]


class Ours(Side):
    """A cluster of ours; ``lacks`` says which of the settings that it was to have this version does not know."""

    def __init__(self, cluster: EmbeddedCluster, name: str, idle: float, lacks: tuple[str, ...] = ()) -> None:
        self.settings = cluster.settings
        self.lacks = lacks
        pid = cluster.workers[0].process.pid
        super().__init__(name, connect(self.settings.redis_url), lambda s: self.run(flows.idle(s)), idle, pid)

    def run(self, wf: WorkflowContext) -> Any:
        """Runs it to its end; its last result."""
        return wf.execute(backend="celery", settings=self.settings, timeout=TIMEOUT)


class Raw(Side):
    """Raw Celery; ``app`` is the module `tests.bench.speed.raw`, bound to this side's server."""

    def __init__(self, app: ModuleType, server: Any, url: str, idle: float, pid: int) -> None:
        self.app = app
        self.url = url
        super().__init__("raw Celery", server, lambda s: app.nap.apply_async((s,)).get(timeout=TIMEOUT), idle, pid)


class Stage:
    """All sides. Each starts when it is first asked for, and runs until the block is left."""

    def __init__(self, idle: float) -> None:
        """``idle``: seconds of the idle period by which each side's counts are corrected."""
        self._idle = idle
        self._running = ExitStack()

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.__exit__(kind, error, trace)

    @cached_property
    def ours(self) -> Ours:
        """With the settings that are the default."""
        return self._cluster("ours")

    @cached_property
    def single(self) -> Ours:
        """One node a message: nothing is fused, nothing is batched."""
        return self._cluster("ours, single", fuse="off", batch=1)

    @cached_property
    def quiet(self) -> Ours:
        """No events; no beats, and so nothing that the monitor reads, but at the start."""
        return self._cluster("ours, all off", events="off", heartbeat_interval=NEVER, heartbeat_timeout=3 * NEVER)

    @cached_property
    def raw(self) -> Raw:
        return self._running.enter_context(raw(self._idle))

    def _cluster(self, name: str, **wished: Any) -> Ours:
        known = {key: value for key, value in wished.items() if key in Settings.model_fields}
        lacks = tuple(sorted(wished.keys() - known.keys()))
        cluster = EmbeddedCluster(workers=1, concurrency=PROCESSES, loglevel="WARNING", **known)
        self._running.callback(cluster.stop, grace=0.0)  # Nothing of it is needed any more.
        cluster.start()
        return Ours(cluster, name, self._idle, lacks)


@contextmanager
def raw(idle: float) -> Iterator[Raw]:
    """Raw Celery, for the time of the block."""
    scratch = ScratchDirectory()
    with EmbeddedServer() as server:
        url = os.environ["RAW_CELERY_URL"] = celery_url(server.url)
        command = [sys.executable, "-m", "celery", "-A", "tests.bench.speed.raw", "worker", "-Q", "raw"]
        command += ["--concurrency", str(PROCESSES), "-n", "raw@%h", "-l", "WARNING"]
        with running("raw", [command], scratch, environment({"RAW_CELERY_URL": url})) as workers:
            from tests.bench.speed import raw as app  # reads where its server is when it is imported

            wait_ready(workers, lambda: bool(app.app.control.ping(timeout=0.5)))
            try:
                yield Raw(app, connect(server.url), server.url, idle, workers[0].pid)
            finally:
                # Results unsubscribe when they are collected, and try for long if the server is gone by then.
                app.app.backend.result_consumer.subscribed_to.clear()
                app.app.close()
