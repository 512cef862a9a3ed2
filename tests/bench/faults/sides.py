"""Both sides behind one face: a session has its own queue and keys, starts nodes, and sends work that waits."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol

import redis
from kombu import Connection
from kombu.exceptions import OperationalError

from graflow_celery import Run, Settings
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.embedded.scratch import ScratchDirectory
from graflow_celery.settings import celery_url, load_settings
from graflow_celery.testing import wait_until
from tests.bench.faults import flows, gate, raw
from tests.bench.faults.gate import Gate
from tests.bench.faults.nodes import Node, our_node, plain_node

RABBITMQ = os.environ.get("GRAFLOW_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//")
PREFETCH = ("--prefetch-multiplier", "2")


class Place:
    """Where the faults happen: one server for both sides, in databases of their own, and one for the gates."""

    def __init__(self) -> None:
        self.server = EmbeddedServer()
        self.lab_server = EmbeddedServer()

    def __enter__(self) -> Place:
        self.server.start()
        self.lab_server.start()
        self.lab = redis.Redis.from_url(self.lab_server.url, decode_responses=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.server.stop()
        self.lab_server.stop()


class Session(Protocol):
    """One try of one side."""

    gate: Gate

    def node(self, label: str, concurrency: int, *arguments: str) -> Node: ...

    def submit(self, labels: Sequence[str]) -> None: ...

    def call(self, labels: Sequence[str], timeout: float) -> Future[Any]: ...

    def waiting(self) -> int: ...

    def problems(self, expected: dict[str, str]) -> list[str]: ...

    def __enter__(self) -> Session: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


Opened = Callable[[], Session]


class _Session:
    """What both sides share."""

    database = 0
    start: Callable[..., Node]

    def __init__(self, place: Place, broker: str = "") -> None:
        """``broker``: RabbitMQ's URL; empty: the place's Redis."""
        token = secrets.token_hex(3)
        self.url = f"{place.server.url}?db={self.database}"
        self.settings: Settings = load_settings(
            redis_url=self.url,
            broker_url=broker,
            result_backend="",
            queue=f"faults-{token}",
            key_prefix=f"faults-{token}",
        )
        self.gate = Gate(place.lab, token)
        self._server = redis.Redis.from_url(self.url)
        self._server.flushdb()
        self._scratch = ScratchDirectory()
        self._nodes: list[Node] = []
        self._env = {gate.LAB: place.lab_server.url}
        self._threads = ThreadPoolExecutor()

    def node(self, label: str, concurrency: int, *arguments: str) -> Node:
        """Starts a node; it may not be ready yet."""
        env = {**self._env, gate.NODE: label}
        node = type(self).start(self.settings, self._scratch, label, concurrency, arguments, env)
        self._nodes.append(node)
        return node

    def waiting(self) -> int:
        """How many messages no worker has taken from the queue."""
        if not self.settings.broker_url:
            return int(self._server.llen(self.settings.queue))
        with Connection(self.settings.broker_url) as connection:
            return int(connection.default_channel.queue_declare(self.settings.queue, passive=True).message_count)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gate.open()
        for node in self._nodes:
            node.end()
        self._threads.shutdown(cancel_futures=True)
        if self.settings.broker_url:
            with Connection(self.settings.broker_url) as connection, suppress(OperationalError):
                connection.default_channel.queue_delete(self.settings.queue)
                connection.default_channel.exchange_delete(self.settings.queue)
        self._scratch.remove()


class Ours(_Session):
    start = staticmethod(our_node)
    run: Run | None = None

    def __init__(
        self, place: Place, broker: str = "", *, fail_fast: bool = False, env: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(place, broker)
        self._env.update(env or {})
        self._fail_fast = fail_fast

    def __enter__(self) -> Ours:
        return self

    def submit(self, labels: Sequence[str]) -> None:
        """A group of tasks that wait at the gate. Nobody waits for its run, so no client helps to watch over it."""
        self.run = flows.gated(self.gate.work, labels).submit(settings=self.settings)

    def call(self, labels: Sequence[str], timeout: float) -> Future[Any]:
        """The same, by a caller who waits for its result."""
        wf = flows.gated(self.gate.work, labels, fail_fast=self._fail_fast)
        return self._threads.submit(wf.execute, backend="celery", settings=self.settings, timeout=timeout)

    def problems(self, expected: dict[str, str]) -> list[str]:
        """Waits for the run's end; what is wrong with its results or its events. Empty: nothing."""
        assert self.run is not None
        status = self.run.wait(timeout=30)
        found = [] if status == "succeeded" else [f"the run ended {status}: {self.run.reason}"]
        results = {label: self.run.results().get(label) for label in expected}
        if results != expected:
            found.append(f"results {results} instead of {expected}")
        return found + miscounted(self.run, expected)


class Plain(_Session):
    start = staticmethod(plain_node)
    database = 1
    result: Any = None

    def __init__(self, place: Place, broker: str = "", *, late: bool) -> None:
        super().__init__(place, broker)
        chosen = (self.settings.broker, celery_url(self.url), self.settings.queue, "yes" if late else "")
        self._env.update(zip(raw.VARIABLES, chosen, strict=True))
        self._app = raw.make_app(*chosen)

    def __enter__(self) -> Plain:
        return self

    def submit(self, labels: Sequence[str]) -> None:
        self.result = raw.held_chord(self._app, self.gate.work, labels)

    def call(self, labels: Sequence[str], timeout: float) -> Future[Any]:
        return self._threads.submit(raw.held_chord(self._app, self.gate.work, labels).get, timeout=timeout)

    def send_burn(self, count: int) -> None:
        """A task that sums ``count`` numbers in one call."""
        self._app.tasks["raw.burn"].apply_async((count,))

    def problems(self, expected: dict[str, str]) -> list[str]:
        with suppress(TimeoutError):
            wait_until(self.result.ready, timeout=10, description="the chord's body")
        state = self.result.state
        return [] if state == "SUCCESS" else [f"the chord's body ended {state}"]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        # Results unsubscribe when they are collected, and try for long if the server is gone by then.
        self._app.backend.result_consumer.subscribed_to.clear()
        self._app.close()


def miscounted(run: Run, labels: Sequence[str] | dict[str, str]) -> list[str]:
    """Nodes of a run that were not counted exactly once, by its events."""
    counted = Counter(str(record["node"]) for record in run.events() if record["event"] == "node_succeeded")
    return [f"{label} was counted {counted[label]} times" for label in labels if counted[label] != 1]


def rabbitmq_answers() -> bool:
    with Connection(RABBITMQ, connect_timeout=3) as connection:
        try:
            connection.ensure_connection(max_retries=1)
        except OperationalError:
            return False
        return True
