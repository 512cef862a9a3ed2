"""pytest-celery's setup on processes instead of containers. ``pytest_plugins = ["graflow_celery.testing.nodes"]``.

``process_celery_setup`` is a ``CeleryTestSetup`` as pytest-celery's ``celery_setup`` is, with the same node API (logs,
kill, restart, ready, ...), but needs no Docker engine: its broker, its backend (which also is the run store) and its
worker are processes of ours. pytest-celery's own fixtures are left as they are. For other nodes override the fixture
that makes them::

    @pytest.fixture
    def process_celery_worker_cluster(process_celery_settings):
        settings = process_celery_settings
        with started_worker(settings, "one") as one, started_worker(settings, "two") as two:
            yield CeleryWorkerCluster(one, two)
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psutil  # type: ignore[import-untyped]  # it has none
import pytest
from celery import Celery
from pytest_celery import (
    CeleryBackendCluster,
    CeleryBrokerCluster,
    CeleryTestSetup,
    CeleryTestWorker,
    CeleryWorkerCluster,
    RedisTestBackend,
    RedisTestBroker,
)

from graflow_celery.celery_backend.app import create_app
from graflow_celery.embedded import EmbeddedServer, EmbeddedWorker
from graflow_celery.embedded.scratch import ScratchDirectory
from graflow_celery.settings import Settings, load_settings
from graflow_celery.testing.containers import ServerContainer, WorkerContainer

PING_TASKS = "pytest_celery.vendors.worker.tasks"
PROCESS_COLUMNS = ("pid", "name", "username", "cmdline", "cpu_percent", "memory_percent", "create_time")


class ProcessTestWorker(CeleryTestWorker):
    """A worker node. Its processes are looked up from here, since there is nothing to log into."""

    def get_running_processes_info(
        self, columns: Sequence[str] | None = None, filters: dict[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """The worker's processes: the main one first, then its pool; the watch over it is not counted.

        See pytest-celery for the columns.
        """
        if self.container.status != "running":
            return []
        main = psutil.Process(self.container.worker.process.pid)
        found = [
            process.as_dict(list(columns or PROCESS_COLUMNS))
            for process in (main, *main.children(recursive=True))
            if os.getsid(process.pid) == os.getsid(main.pid)  # the watch has a session of its own
        ]
        wanted = (filters or {}).items()
        return [info for info in found if all(info.get(name) == value for name, value in wanted)]


@contextmanager
def started_server() -> Iterator[ServerContainer]:
    """A server for the time of the block, to be a broker's or a backend's container."""
    scratch = ScratchDirectory()
    server = EmbeddedServer(scratch=scratch)
    try:
        server.start()
        yield ServerContainer(server)
    finally:
        server.stop()
        scratch.remove()


@contextmanager
def started_worker(
    settings: Settings, name: str = "worker", concurrency: int = 2, *, app: Celery | None = None, **options: Any
) -> Iterator[ProcessTestWorker]:
    """A worker node for the time of the block. It may still be starting: ``ready()`` waits for it. It ends by force.

    Args:
        settings: what it runs with.
        name: the part of its node name before the @; what follows is its container's id.
        concurrency: how many tasks it runs at a time.
        app: the app with which the test sends to it.
        options: see :class:`EmbeddedWorker`.
    """
    scratch = ScratchDirectory()
    container_id = secrets.token_hex(32)
    options["arguments"] = ["--include", PING_TASKS, *options.get("arguments", ())]
    worker = EmbeddedWorker(settings, scratch, name=f"{name}@{container_id[:12]}", concurrency=concurrency, **options)
    try:
        worker.start()
        node = ProcessTestWorker(WorkerContainer(worker, settings, container_id), app or create_app(settings))
        yield node
        node.teardown()
    finally:
        worker.stop(grace=0.0)
        scratch.remove()


@pytest.fixture
def process_celery_broker() -> Iterator[RedisTestBroker]:
    """The broker: an embedded server of its own."""
    with started_server() as container:
        node = RedisTestBroker(container)
        yield node
        node.teardown()


@pytest.fixture
def process_celery_backend() -> Iterator[RedisTestBackend]:
    """The result backend, which also is where runs and content live: an embedded server of its own."""
    with started_server() as container:
        node = RedisTestBackend(container)
        yield node
        node.teardown()


@pytest.fixture
def process_celery_broker_cluster(process_celery_broker: RedisTestBroker) -> CeleryBrokerCluster:
    return CeleryBrokerCluster(process_celery_broker)


@pytest.fixture
def process_celery_backend_cluster(process_celery_backend: RedisTestBackend) -> CeleryBackendCluster:
    return CeleryBackendCluster(process_celery_backend)


@pytest.fixture
def process_celery_settings(
    process_celery_broker_cluster: CeleryBrokerCluster, process_celery_backend_cluster: CeleryBackendCluster
) -> Settings:
    """The settings of clients and workers: ``wf.execute(backend="celery", settings=process_celery_settings)``."""
    backend = process_celery_backend_cluster[0]
    return load_settings(
        broker_url=process_celery_broker_cluster.config()["host_urls"][0],
        result_backend=backend.config()["host_url"],
        redis_url=backend.container.server.url,
    )


@pytest.fixture
def process_celery_setup_app(process_celery_settings: Settings) -> Iterator[Celery]:
    """The app with which the test sends: the engine's, as workers have it. The current app while the test runs."""
    app = create_app(process_celery_settings)
    app.set_current()
    yield app
    app.close()


@pytest.fixture
def process_celery_worker(
    process_celery_settings: Settings, process_celery_setup_app: Celery
) -> Iterator[ProcessTestWorker]:
    """One worker node that runs two tasks at a time."""
    with started_worker(process_celery_settings, app=process_celery_setup_app) as worker:
        yield worker


@pytest.fixture
def process_celery_worker_cluster(process_celery_worker: ProcessTestWorker) -> CeleryWorkerCluster:
    return CeleryWorkerCluster(process_celery_worker)


@pytest.fixture
def process_celery_setup(
    process_celery_worker_cluster: CeleryWorkerCluster,
    process_celery_broker_cluster: CeleryBrokerCluster,
    process_celery_backend_cluster: CeleryBackendCluster,
    process_celery_setup_app: Celery,
) -> Iterator[CeleryTestSetup]:
    """Broker, backend and worker, all ready."""
    setup = CeleryTestSetup(
        worker_cluster=process_celery_worker_cluster,
        broker_cluster=process_celery_broker_cluster,
        backend_cluster=process_celery_backend_cluster,
        app=process_celery_setup_app,
    )
    assert setup.ready()
    yield setup
    setup.teardown()
