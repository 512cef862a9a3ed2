"""A worker's beat and its share of the monitor: one thread in the worker's main process, started by signals."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import redis
from celery import Celery, signals

from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.engine.monitor import Monitor
from graflow_celery.errors import UnavailableError
from graflow_celery.redis_backend.liveness import WorkerLease

logger = logging.getLogger(__name__)


class Heart:
    """Beats for one worker until it is stopped."""

    def __init__(self, runtime: Runtime, worker: Callable[[], WorkerLease]) -> None:
        self._runtime = runtime
        self._worker = worker
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="graflow-heartbeat", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stops beating and gives the lease up."""
        self._stopping.set()
        self._thread.join(timeout=2.0)
        try:
            self._runtime.liveness.leave(self._worker().name)
        except (redis.RedisError, UnavailableError) as error:
            logger.warning("the lease of %s could not be given up: %s", self._worker().name, error)

    def _beat_on(self) -> None:
        monitor = monitor_of(self._runtime, self._worker().name)
        interval = self._runtime.settings.heartbeat_interval
        due = 0.0
        while True:
            now = time.monotonic()
            try:
                if now >= due:
                    due = now + interval
                    self._runtime.liveness.beat(self._worker())
                monitor.tick()
            except (redis.RedisError, UnavailableError) as error:
                logger.warning("no beat: %s", error)
            if self._stopping.wait(monitor.patience(max(0.0, due - time.monotonic()))):
                return


def monitor_of(runtime: Runtime, name: str) -> Monitor:
    """A monitor on a runtime, standing for election as ``name``."""
    return Monitor(
        runtime.engine,
        runtime.store,
        lambda run: runtime.graph(run.graph).plan,
        runtime.liveness,
        name,
        runtime.settings.heartbeat_timeout,
    )


def install(app: Celery, runtime: Callable[[], Runtime]) -> None:
    """Lets every worker of ``app`` beat from when it is ready until it shuts down."""
    hearts: list[Heart] = []

    def ready(sender: Any = None, **_: Any) -> None:
        if sender is None or sender.app is not app:
            return
        heart = Heart(runtime(), lambda: _lease(sender))
        hearts.append(heart)
        heart.start()

    def shutting_down(**_: Any) -> None:
        while hearts:
            hearts.pop().stop()

    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutdown.connect(shutting_down, weak=False)


def _lease(consumer: Any) -> WorkerLease:
    """The lease of the worker that a consumer belongs to; its queues as they are now."""
    return WorkerLease(
        name=consumer.hostname,
        queues=tuple(sorted(queue.name for queue in (consumer.task_consumer.queues if consumer.task_consumer else ()))),
        pid=os.getpid(),
        concurrency=int(getattr(consumer.pool, "num_processes", None) or getattr(consumer.pool, "limit", None) or 1),
        pool=type(consumer.pool).__module__.rpartition(".")[2],
        version=version("celery"),
    )
