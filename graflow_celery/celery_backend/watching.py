"""A process's share of the monitor: a thread that looks when it leads, and sleeps on the server when it does not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import redis

from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.engine.inspection import Inspection, Patience
from graflow_celery.engine.monitor import Monitor
from graflow_celery.engine.turnover import Turnover
from graflow_celery.errors import UnavailableError
from graflow_celery.redis_backend.client import Client, connect, short
from graflow_celery.redis_backend.events import parse

logger = logging.getLogger(__name__)

#: Seconds for which a monitor that stands by sleeps if nothing wakes it.
STANDBY = 30.0
#: Seconds that the stream by which a monitor is woken outlives its last use.
WAKE_TTL = 60


class Watch:
    """Stands for election as the monitor under ``name``, and ticks as long as it leads.

    One that stands by costs nothing but a connection: it sleeps until the bell rings, because a worker died, or until
    :meth:`stand` is called, because nobody leads any more; or for ``standby`` seconds.
    """

    def __init__(self, runtime: Runtime, name: str, standby: float = STANDBY) -> None:
        self._runtime = runtime
        self._name = name
        self._standby = standby
        self._wake = runtime.keys.wake(name)
        self._monitor = monitor_of(runtime, name)
        self._stopping = threading.Event()
        #: Whether the server answered when it was last asked; None if it was not asked yet.
        self.answers: bool | None = None
        self._thread = threading.Thread(target=self._watch, name="graflow-monitor", daemon=True)
        self._last = dict.fromkeys((self._wake, runtime.keys.workers.bell), "")

    @property
    def lives(self) -> bool:
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stops, and lets another monitor lead."""
        self._stopping.set()
        try:
            self._ring()
            self._thread.join(timeout=2.0)
            self._runtime.liveness.resign(self._name)
        except (redis.RedisError, UnavailableError) as error:
            logger.warning("the monitor's lease could not be given up: %s", short(error))

    def stand(self) -> None:
        """Nobody leads: stands for election now. Raises redis.RedisError."""
        if not self._monitor.leads:
            self._ring()

    def _ring(self) -> None:
        with self._runtime.client.pipeline(transaction=False) as pipe:
            pipe.xadd(self._wake, {"wake": 1}, maxlen=10)
            pipe.expire(self._wake, WAKE_TTL)
            pipe.execute()

    def _watch(self) -> None:
        client = connect(self._runtime.settings.redis_url, block=self._standby)
        led: bool | None = None
        while not self._stopping.is_set():
            try:
                done = self._monitor.tick()
                if self._monitor.leads != led:
                    led = self._monitor.leads
                    logger.info(
                        "%s %s", self._name, "leads the monitors" if led else "stands by: another monitor leads"
                    )
                if done:
                    logger.info("%d late things were seen to", done)
                if self.answers is False:
                    logger.info("the server answers again")
                self.answers = True
                self._sleep(client)
            except (redis.RedisError, UnavailableError) as error:
                if self.answers is not False:
                    logger.error("the server went away (%s); trying again until it answers", short(error))
                self.answers = False
                self._stopping.wait(self._runtime.settings.heartbeat_interval)
            except Exception:  # boundary: what one run is like must not end the watch over all others
                logger.exception("the monitor stumbled; it goes on")
                self._stopping.wait(self._runtime.settings.heartbeat_interval)
        client.close()

    def _sleep(self, client: Client) -> None:
        """Until it is time for another tick, or something wakes it."""
        interval = self._runtime.settings.heartbeat_interval
        seconds = self._monitor.patience(interval) if self._monitor.leads else self._standby
        for stream, last in self._last.items():
            if not last:
                newest = client.xrevrange(stream, count=1)
                self._last[stream] = newest[0][0].decode() if newest else "0-0"
        for stream, entries in parse(client.xread({**self._last}, block=max(1, int(seconds * 1000)))).items():
            self._last[stream] = entries[-1][0]


class Standby:
    """The share of a process that waits for runs: it watches as long as somebody waits."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = threading.Lock()
        self._waiting = 0
        self._watch: Watch | None = None

    @contextmanager
    def standing(self) -> Iterator[None]:
        """For as long as the block lasts, in as many threads as there are."""
        with self._lock:
            self._waiting += 1
            if self._watch is None:
                # No beat of its own tells it that nobody leads.
                often = 2 * self._runtime.settings.heartbeat_interval
                self._watch = Watch(self._runtime, f"client@{self._runtime.where}", often)
                self._watch.start()
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1
                ended, self._watch = (None, self._watch) if self._waiting else (self._watch, None)
            if ended is not None:
                ended.stop()


_STANDBYS: WeakKeyDictionary[Runtime, Standby] = WeakKeyDictionary()


def standby_of(runtime: Runtime) -> Standby:
    """The one of this process for a runtime."""
    return _STANDBYS.setdefault(runtime, Standby(runtime))


def monitor_of(runtime: Runtime, name: str) -> Monitor:
    """A monitor on a runtime, standing for election as ``name``."""
    settings = runtime.settings
    inspection = Inspection(
        runtime.engine,
        runtime.store,
        runtime.liveness,
        runtime.losses,
        Turnover(runtime.depth, runtime.liveness),
        settings.queue,
        Patience(settings.heartbeat_interval, settings.heartbeat_timeout),
        runtime.liveness.now,
    )
    # Shorter than a worker's lease: the next monitor leads before the leases run out of those that died with it.
    lease = max(settings.heartbeat_timeout / 2, settings.heartbeat_interval * 1.2)
    return Monitor(runtime.engine, runtime.store, runtime.liveness, runtime.losses, inspection, name, lease)
