"""What the fault suite works with: workers of which a test says who takes work, a gate for tasks, and the audit."""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection
from kombu.exceptions import OperationalError

from graflow_celery import ParallelGroup, Run, RunStatus, workflow
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.plan import TaskOptions
from graflow_celery.core.task import TaskWrapper
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.embedded.workers import EmbeddedWorker
from graflow_celery.errors import GraflowError
from graflow_celery.redis_backend.liveness import WorkerLease
from graflow_celery.runs import client_runtime
from graflow_celery.testing import wait_until
from graflow_celery.workflows import WorkflowContext
from tests.fault.bodies import held_up, tally

RABBITMQ = os.environ.get("GRAFLOW_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//")
BROKERS = ("redis", "rabbitmq")
#: The worst that a user has to wait for a lost task to run elsewhere, in seconds.
WORST = 5.0
#: Settings with which a monitor is less patient, for tests that wait for it.
FAST: dict[str, Any] = {"heartbeat_interval": 0.5, "heartbeat_timeout": 2.0}


@dataclass(frozen=True)
class Begun:
    """An attempt's note that it runs. ``at``: by the machine's monotonic clock, as `time.monotonic` has it."""

    node: str
    attempt: int
    pid: int
    at: float


class Gate:
    """A directory in which tasks note that they run, and wait for leave to end."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begun(self, node: str = "*", attempt: int | str = "*") -> list[Begun]:
        """The attempts that began, the earliest first."""
        found = []
        for note in self.path.glob(f"ran-{node}-{attempt}-*"):
            _, name, number, pid = note.name.split("-")
            found.append(Begun(name, int(number), int(pid), float(note.read_text())))
        return sorted(found, key=lambda item: item.at)

    def wait(self, count: int, node: str = "*", attempt: int | str = "*", timeout: float = 20.0) -> list[Begun]:
        """The attempts, as soon as there are ``count`` of them."""
        wait_until(
            lambda: len(self.begun(node, attempt)) >= count,
            timeout=timeout,
            description=f"{count} attempts '{node}' #{attempt} to begin; begun: {self.begun()}",
        )
        return self.begun(node, attempt)

    def open(self, *nodes: str) -> None:
        """Lets these end, and all those of their names that begin later; all tasks if none is named."""
        for name in [f"open-{node}" for node in nodes] or ["open"]:
            (self.path / name).touch()

    def task(self, node: str, body: Callable[..., str] = held_up, **options: Any) -> TaskWrapper:
        """A task that notes that it runs and waits at this gate, or has another ``body``.

        ``options``: fields of TaskOptions, and values for the body's own parameters.
        """
        own = {name: options.pop(name) for name in [*options] if name not in TaskOptions.__slots__}
        return TaskWrapper(
            node,
            body,
            inject_context=True,
            options=TaskOptions(**options),
            bound={"gate": str(self.path), **own},
            register_to_context=False,
        )

    def group(self, nodes: Sequence[str], *, policy: Any = "strict", **options: Any) -> WorkflowContext:
        """A workflow of the group ``members`` of such tasks, and of ``tally`` after it. Each has a message of its own:
        what becomes of those that share one is in test_batches.
        """
        members = [self.task(node, **options) for node in nodes]
        with workflow("faults") as wf:
            ParallelGroup(members, name="members", policy=policy, batch=1) >> tally
        return wf


class Stand:
    """A cluster with the means to say who takes work, to see who holds what, and to bring back who died."""

    def __init__(self, cluster: EmbeddedCluster) -> None:
        self.cluster = cluster
        self.settings = cluster.settings
        self.workers = cluster.workers
        self.runtime: Runtime = client_runtime(cluster.settings)
        self.control = self.runtime.app.control

    def submit(self, wf: WorkflowContext, **options: Any) -> Run:
        return wf.submit(settings=self.settings, **options)

    def lease(self, worker: EmbeddedWorker) -> WorkerLease | None:
        """The worker's lease, if it has not run out."""
        pid = worker.process.pid
        return next((lease for lease in self.runtime.liveness.workers() if lease.pid == pid), None)

    def name(self, worker: EmbeddedWorker) -> str:
        """Celery's node name."""
        lease = self.lease(worker)
        assert lease is not None, f"{worker.name} has no lease"
        return lease.name

    def leader(self) -> EmbeddedWorker:
        """The worker whose monitor leads, as soon as one does."""

        def leads() -> list[EmbeddedWorker]:
            leader = self.runtime.liveness.leader()
            return [worker for worker in self.workers if (lease := self.lease(worker)) and lease.id == leader]

        return wait_until(leads, timeout=10, description="a worker's monitor to lead")[0]

    def only(self, *takers: EmbeddedWorker) -> None:
        """Has these workers alone take work from the queue; returns when it is so."""
        for worker in self.workers:
            (self.take if worker in takers else self.leave)(worker)

    def take(self, worker: EmbeddedWorker) -> None:
        """Has a worker take work."""
        assert self.control.add_consumer(self.settings.queue, destination=[self.name(worker)], reply=True, timeout=10)

    def leave(self, worker: EmbeddedWorker) -> None:
        """Has a worker take no more work."""
        assert self.control.cancel_consumer(
            self.settings.queue, destination=[self.name(worker)], reply=True, timeout=10
        )

    def hold(self, worker: EmbeddedWorker, run: Run, count: int, running: int, timeout: float = 10.0) -> None:
        """Waits until a beat says that the worker holds so many nodes of a run, of which ``running`` run.

        It may have old messages of some besides, which will be refused.
        """

        def held() -> bool:
            lease = self.lease(worker)
            found = [item for item in lease.held if item.run.id == run.id] if lease else []
            return len({item.node for item in found}) == count and sum(item.running for item in found) == running

        try:
            wait_until(held, timeout=timeout, description=f"{worker.name} to hold {count}, {running} of them running")
        except TimeoutError as error:
            logs = "\n".join(item.process.last_words(40) for item in self.workers)
            pytest.fail(f"{error} It has {self.lease(worker)}{logs}")

    def wake(self) -> None:
        """Brings back what a test killed or stopped."""
        for worker in self.workers:
            if worker.process.running:
                resume(worker)
            else:
                worker.start()
        self.workers.wait_ready()

    def revive(self) -> None:
        """Brings back what a test killed or stopped, and has all workers take work."""
        self.wake()
        self.only(*self.workers)


def suspend(worker: EmbeddedWorker) -> None:
    """SIGSTOP for the worker with its pool."""
    os.killpg(worker.process.pid, signal.SIGSTOP)


def resume(worker: EmbeddedWorker) -> None:
    """SIGCONT for the worker with its pool."""
    os.killpg(worker.process.pid, signal.SIGCONT)


@contextmanager
def stand(broker: str = "redis", workers: int = 2, concurrency: int = 2, **options: Any) -> Iterator[Stand]:
    """A cluster for the time of the block, which ends by force. ``options``: see EmbeddedCluster."""
    with _broker(broker) as given, EmbeddedCluster(workers, concurrency, **given, **options) as cluster:
        if broker == "rabbitmq":
            client_runtime(cluster.settings).app.conf.control_exchange = given["queue"]
        yield Stand(cluster)
        cluster.workers.stop(grace=0.0)


@contextmanager
def _broker(name: str) -> Iterator[dict[str, Any]]:
    """What a cluster has to know of a broker.

    On RabbitMQ the queue is its own, and is deleted afterwards; so are those of control commands, by whose names
    workers of the same name in two clusters would get into each other's way.
    """
    if name == "redis":
        yield {}
        return
    queue = f"graflow-fault-{secrets.token_hex(4)}"
    with Connection(RABBITMQ, connect_timeout=3) as connection:
        try:
            connection.ensure_connection(max_retries=1)
        except OperationalError as error:
            if os.environ.get("CI") == "true":
                pytest.fail(f"RabbitMQ is expected at {RABBITMQ} on CI: {error}")
            pytest.skip(f"no RabbitMQ at {RABBITMQ}")
    env = {"CELERY_CONFIG_MODULE": "tests.fault.own_control", "GRAFLOW_TEST_CONTROL": queue}
    yield {"broker_url": RABBITMQ, "queue": queue, "queues": [queue], "env": env}
    with Connection(RABBITMQ, connect_timeout=3) as connection:
        channel = connection.channel()
        channel.queue_delete(queue)
        for exchange in (queue, f"{queue}.pidbox", f"reply.{queue}.pidbox"):
            channel.exchange_delete(exchange)


class Caller:
    """A client that waits for a run from before the fault on, in a thread."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._status: list[RunStatus] = []
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        with suppress(GraflowError):  # then it has no status, which is told by who asks for it
            self._status.append(self.run.wait(timeout=60))

    def returns(self, timeout: float = 20.0) -> RunStatus:
        self._thread.join(timeout)
        assert self._status, f"the caller still waits: {list(self.run.events())}"
        return self._status[0]


def events(run: Run, name: str, node: str | None = None) -> list[Mapping[str, Any]]:
    """The run's events of a name, of one node or of all."""
    return [record for record in run.events() if record["event"] == name and node in (None, record.get("node"))]


def wait_for(run: Run, name: str, node: str | None = None, count: int = 1, timeout: float = 10.0) -> float:
    """Waits for so many events; returns the time of the last of them, in seconds by the server's clock."""
    wait_until(
        lambda: len(events(run, name, node)) >= count,
        timeout=timeout,
        description=f"{count} x {name} of {node or 'any node'}; there are {list(run.events())}",
    )
    return float(events(run, name, node)[count - 1]["at"])


ENDS = ("node_succeeded", "node_failed", "node_skipped")


def audit(run: Run, unfinished: Sequence[str] = ()) -> None:
    """Every node ended once, every attempt began once, every barrier closed once, and the run ended once.

    ``unfinished``: nodes of which nothing was to come any more when the run ended, or their group.
    """
    records = list(run.events())
    plan = run.plan
    nodes = [name for name in plan.nodes if not plan[name].is_group]
    groups = [name for name in plan.nodes if plan[name].is_group]
    ended = Counter(record["node"] for record in records if record["event"] in ENDS)
    assert ended == Counter(node for node in nodes if node not in unfinished), records
    begun = Counter((record["node"], record["attempt"]) for record in records if record["event"] == "node_started")
    assert not [key for key, count in begun.items() if count > 1], records
    closed = Counter(record["node"] for record in records if record["event"] in ("group_succeeded", "group_failed"))
    assert closed == Counter(groups), records
    over = [record["event"] for record in records if record["event"] in {f"run_{status}" for status in RunStatus}]
    assert over == [f"run_{run.status}"], records
    for record in events(run, "node_succeeded"):
        name = str(record["node"])
        if name != "tally":
            assert run.result(name) == f"{name}-{record['attempt']}"


def right_result(run: Run, nodes: Sequence[str]) -> None:
    """The run succeeded, each node's outcome counts once, and the group's result has each of them."""
    assert run.status is RunStatus.SUCCEEDED, run.reason
    audit(run)
    assert run.result() == dict.fromkeys(nodes, 1)


def kill_pid(pid: int, number: int = signal.SIGKILL) -> None:
    """Sends a signal to one process alone; nothing if it is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
