"""Collects what nodes log, where the setting ``collect_logs`` is on, without ever slowing or failing one.

A line goes into a bounded buffer; a thread of each process sends what is there a few times a second. What the buffer
or the server has no room for is dropped and counted, and the run's log tells how much it was.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, deque
from contextvars import Context
from typing import Any

import redis
from celery import Celery, signals

from graflow_celery import logs
from graflow_celery.errors import UnavailableError
from graflow_celery.redis_backend.client import Client, patience, short
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.log_stream import BATCH, Line, append
from graflow_celery.settings import Settings

#: Lines that a process keeps which are not sent yet, and seconds between two sendings.
BUFFERED, PAUSE = 5000, 0.2
#: Seconds for which a process that ends waits until its last lines are sent, and for which a server is waited for.
LAST, WAIT = 2.0, 1.0
#: Runs whose dropped lines are counted one by one.
COUNTED = 1000
#: Whose lines do not come to the root logger: Celery's for tasks.
APART = "celery.task"

logger = logging.getLogger(__name__)


class Collector(logging.Handler):
    """Takes the lines of nodes of this process, and sends them. Its thread starts with the first line."""

    def __init__(self, client: Client, keys: Keys, ttl: int, worker: str) -> None:
        super().__init__()
        self._client = client
        self._keys = keys
        self._ttl = ttl
        self._worker = worker
        self._lines: deque[tuple[str, Line]] = deque()
        self._dropped: Counter[str] = Counter()
        self._guard = threading.Lock()
        self._news = threading.Event()
        self._empty = threading.Event()
        self._thread: threading.Thread | None = None
        self._complained = False

    def attach(self) -> None:
        for name in (None, APART):
            where = logging.getLogger(name)
            if (name is None or not where.propagate) and self not in where.handlers:
                where.addHandler(self)

    def detach(self) -> None:
        for name in (None, APART):
            logging.getLogger(name).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        here = logs.origin()
        if here is None:
            return
        try:
            facts = logs.entry_of(record)
        except Exception:  # noqa: BLE001  boundary: what is logged makes itself text, and may raise anything
            self.handleError(record)
            return
        line = {"at": f"{record.created:.3f}", "node": here.node, "attempt": here.attempt, "worker": self._worker}
        with self._guard:
            if len(self._lines) >= BUFFERED:
                self._drop(here.run, 1)
            else:
                self._lines.append((here.run, {**line, **facts}))
            self._empty.clear()
            if self._thread is None:
                apart = Context().run  # what the thread logs itself is no node's
                self._thread = threading.Thread(target=apart, args=(self._send_on,), name="graflow-logs", daemon=True)
                self._thread.start()
        self._news.set()

    def finish(self) -> None:
        """Waits until what is there is sent, but not for long."""
        if self._thread is not None:
            self._news.set()
            self._empty.wait(LAST)

    def _send_on(self) -> None:
        pause = threading.Event()
        while True:
            self._news.wait()
            self._news.clear()
            try:
                self._send_all()
            except Exception:  # boundary: the thread must live on, whatever the store says
                logger.exception("lines of nodes could not be sent; it goes on")
            pause.wait(PAUSE)  # what comes meanwhile goes together

    def _send_all(self) -> None:
        while True:
            with self._guard:
                batch = [self._lines.popleft() for _ in range(min(BATCH, len(self._lines)))]
                dropped, self._dropped = self._dropped, Counter()
                if not batch and not dropped:
                    self._empty.set()
                    return
            told = [(run, self._missing(count)) for run, count in dropped.items()]
            try:
                with patience(WAIT):
                    append(self._client, self._keys, self._ttl, [*batch, *told])
                self._complained = False
            except (redis.RedisError, UnavailableError) as error:
                with self._guard:
                    for run, count in [*((run, 1) for run, _ in batch), *dropped.items()]:
                        self._drop(run, count)
                if not self._complained:
                    self._complained = True
                    logger.warning("lines of nodes are dropped, as the server does not take them: %s", short(error))
                return

    def _drop(self, run: str, count: int) -> None:
        if run in self._dropped or len(self._dropped) < COUNTED:
            self._dropped[run] += count

    def _missing(self, count: int) -> Line:
        at = f"{time.time():.3f}"
        text = f"{count:,} lines were dropped here: they came faster than the server took them"
        return {
            "at": at,
            "level": "WARNING",
            "logger": __name__,
            "message": text,
            "worker": self._worker,
            "dropped": count,
        }


class _Collectors:
    """The collector of this process. A child that a pool forks starts with none."""

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        inherited: Collector | None = getattr(self, "made", None)
        self.made: Collector | None = None
        self._lock = threading.Lock()
        if inherited is not None:
            inherited.detach()

    def ensure(self, client: Client, keys: Keys, settings: Settings, worker: str) -> None:
        """Has the lines of this process collected, if they are to be."""
        if not settings.collect_logs:
            return
        with self._lock:
            if self.made is None:
                self.made = Collector(client, keys, settings.result_ttl, worker)
        self.made.attach()  # anew each time: whoever configures logging takes handlers away

    def finish(self) -> None:
        if self.made is not None:
            self.made.finish()


COLLECTORS = _Collectors()


def install(app: Celery, settings: Settings) -> None:
    """Has the lines of every worker of ``app`` say of which node they are, and sends the last ones when one ends."""
    app.add_defaults({"worker_log_format": logs.LINE, "worker_task_log_format": logs.TASK_LINE})

    def starting(instance: Any = None, **_: Any) -> None:
        if instance is not None and instance.app is app:
            logs.install_factory()

    def configured(logger: Any = None, **_: Any) -> None:
        for handler in logger.handlers:
            if not any(isinstance(one, logs.OriginFilter) for one in handler.filters):
                handler.addFilter(logs.OriginFilter())
            if settings.log_format == "json":
                handler.setFormatter(logs.JsonFormatter())

    def ending(**_: Any) -> None:
        COLLECTORS.finish()

    signals.celeryd_init.connect(starting, weak=False)
    for configures in (signals.after_setup_logger, signals.after_setup_task_logger):
        configures.connect(configured, weak=False)
    for ends in (signals.worker_process_shutdown, signals.worker_shutdown):
        ends.connect(ending, weak=False)
