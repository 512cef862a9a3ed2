"""A worker's beat: one thread in its main process, started by signals. See docs/decisions/0006-liveness.md."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import redis
from celery import Celery, bootsteps, signals

from graflow_celery.celery_backend import trust
from graflow_celery.celery_backend.deathwatch import DeathWatch
from graflow_celery.celery_backend.identity import BOOT
from graflow_celery.celery_backend.pulse import HealthFile
from graflow_celery.celery_backend.requests import GIVEN_BACK, give_back, held_requests
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.celery_backend.sharing import shared_counts
from graflow_celery.celery_backend.steady import hang_up
from graflow_celery.celery_backend.watching import Watch
from graflow_celery.errors import UnavailableError
from graflow_celery.redis_backend.liveness import WorkerLease

logger = logging.getLogger(__name__)

SHUT_DOWN = "its worker shut down"


class Heart:
    """Beats for one worker, and stands for election as the monitor, until it is stopped.

    Args:
        describe: the worker's lease as it is now, with nothing held.
    """

    def __init__(self, runtime: Runtime, describe: Callable[[], WorkerLease]) -> None:
        self._runtime = runtime
        self._describe = describe
        self._stopping = threading.Event()
        self._received: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._read = shared_counts(runtime.app)
        self._told: dict[str, int] = {}
        self._watch = Watch(runtime, describe().id)
        settings = runtime.settings
        self._health = HealthFile(settings.health_file, describe().name, settings.heartbeat_interval)
        self._death_watch: DeathWatch | None = None
        self._thread = threading.Thread(target=self._beat_on, name="graflow-heartbeat", daemon=True)

    def start(self) -> None:
        if self._runtime.settings.death_watch:
            self._death_watch = DeathWatch(self._runtime, self._describe().id)
        self._watch.start()
        self._thread.start()

    def count(self, queue: str) -> None:
        """A message was received."""
        with self._counting:
            self._received[queue] += 1

    def stop(self) -> None:
        """Gives back what the worker had to leave undone, stops beating and gives the lease up."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._watch.stop()
        self._thread.join(timeout=2.0)
        held = [(request, held) for request in held_requests() if request.time_start for held in request.held]
        give_back([*_given_back(), *held], SHUT_DOWN)
        try:
            self._runtime.liveness.leave(self._describe().id)
        except (redis.RedisError, UnavailableError) as error:
            logger.warning("the lease could not be given up: %s", error)
        if self._death_watch is not None:
            self._death_watch.end()
        self._health.remove()

    def _beat_on(self) -> None:
        while not self._stopping.is_set():
            answered = False
            self._health.asks()
            try:
                self._beat()
                answered = True
            except (redis.RedisError, UnavailableError) as error:
                logger.warning("no beat: %s", error)
            except Exception:  # boundary: a worker whose beat ended would be taken for dead
                logger.exception("the beat stumbled; it goes on")
            self._health.beat(answered)
            self._stopping.wait(self._runtime.settings.heartbeat_interval)

    def _beat(self) -> None:
        with self._counting:
            received, self._received = self._received, Counter()
        held = tuple(held for request in held_requests() for held in request.held)
        read = self._read.sums() if self._read is not None else {}
        received += Counter({kind: count - self._told.get(kind, 0) for kind, count in read.items()})
        try:
            answer = self._runtime.liveness.beat(
                replace(self._describe(), held=held, watched=self._is_watched), received
            )
        except (redis.RedisError, UnavailableError):
            with self._counting:
                self._received += Counter({queue: count for queue, count in received.items() if queue not in read})
            raise
        self._told = read
        for request in held_requests():
            request.show_current()
        if not answer.has_leader:
            self._watch.stand()
        if answer.declared:
            runs = sorted({item.run.id for item in held})
            logger.warning(
                "this worker had been declared dead; it ends what was given to others, of %d runs", len(runs)
            )
            if runs:
                self._runtime.ask_to_stop(runs, self._describe().name)
        if GIVEN_BACK:
            give_back(_given_back(), SHUT_DOWN)

    @property
    def _is_watched(self) -> bool:
        return self._death_watch is not None and self._death_watch.lives


def _given_back() -> list[Any]:
    return [GIVEN_BACK.popleft() for _ in range(len(GIVEN_BACK))]


class _Described:
    """A worker as its consumer is now; while that has no connection, its queues are those it had."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._queues: list[Any] = []

    @property
    def queues(self) -> list[Any]:
        consumer = self._consumer.task_consumer
        self._queues = list(consumer.queues) if consumer else self._queues
        return self._queues

    def lease(self) -> WorkerLease:
        pool = self._consumer.pool
        return WorkerLease(
            name=self._consumer.hostname,
            queues=tuple(sorted(queue.name for queue in self.queues)),
            pid=os.getpid(),
            concurrency=int(getattr(pool, "num_processes", None) or getattr(pool, "limit", None) or 1),
            pool=type(pool).__module__.rpartition(".")[2],
            version=version("celery"),
            boot=BOOT,
            control=bool(self._consumer.app.conf.worker_enable_remote_control),
            accepts_pickle=trust.accepts_pickle(self._consumer.app),
        )

    def queue_of(self, request: Any) -> str:
        """The queue that a message came from, which does not say so itself."""
        key = (request.delivery_info or {}).get("routing_key") or ""
        return next((queue.name for queue in self._queues if queue.routing_key == key), key)


def install(app: Celery, runtime: Callable[[], Runtime]) -> None:
    """Lets every worker of ``app`` beat from when it is ready until it has shut down."""
    hearts: list[tuple[Heart, _Described]] = []

    def ready(sender: Any = None, **_: Any) -> None:
        if sender is not None and sender.app is app and not hearts:
            trust.warn(app, runtime().settings)
            described = _Described(sender)
            hearts.append((Heart(runtime(), described.lease), described))
            hearts[0][0].start()

    def received(sender: Any = None, request: Any = None, **_: Any) -> None:
        if hearts and sender is not None and sender.app is app:
            heart, described = hearts[0]
            heart.count(described.queue_of(request))

    def shut_down(**_: Any) -> None:
        while hearts:
            hearts.pop()[0].stop()

    class LetGo(bootsteps.StartStopStep):  # type: ignore[misc, unused-ignore]  # no types
        """What Celery sends no signal for: that a worker begins no more, and that it does not wait for what runs."""

        requires = ("celery.worker.components:Pool",)

        def close(self, parent: Any) -> None:
            # Celery forgets what it has not begun, and its messages go back only when all that runs has ended.
            hang_up(parent.consumer)
            GIVEN_BACK.extend(
                (request, request.opening) for request in held_requests() if not request.eta and not request.time_start
            )

        def terminate(self, parent: Any) -> None:
            shut_down()

    app.steps["worker"].add(LetGo)
    signals.worker_ready.connect(ready, weak=False)
    signals.task_received.connect(received, weak=False)
    signals.worker_shutdown.connect(shut_down, weak=False)
