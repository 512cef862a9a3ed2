"""The Celery app: made from our settings, or an app that its owner already has."""

from __future__ import annotations

import importlib
import os
import threading
from typing import Any

from celery import Celery

from graflow_celery.celery_backend import children, collecting, heartbeat, sharing, stopping, tasks, tracing_ends
from graflow_celery.celery_backend.publisher import check_backend
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.settings import Settings, load_settings


class _Runtimes:
    """The runtimes of this process. A child that a pool forks starts with none: it must inherit no connection and no
    lock that a thread of its parent held at that moment."""

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        self._made: dict[int, Runtime] = {}
        self._lock = threading.Lock()

    def get(self, app: Celery, settings: Settings) -> Runtime:
        with self._lock:
            if id(app) not in self._made:
                self._made[id(app)] = Runtime(app, settings)
            return self._made[id(app)]


_RUNTIMES = _Runtimes()


def create_app(settings: Settings | None = None) -> Celery:
    """A Celery app with the engine's tasks, configured by ``settings`` (the environment's by default)."""
    chosen = settings or load_settings()
    check_backend(Celery(broker=chosen.broker, backend=chosen.backend, set_as_current=False))
    fixed = {
        "broker_url": chosen.broker,
        "result_backend": chosen.backend,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
    }
    # Not the current app: that is the owner's, whose shared tasks must not go elsewhere because a workflow was run.
    app = Celery("graflow_celery", changes=fixed, set_as_current=False)
    app.add_defaults(lambda: _defaults(chosen))
    return _install(app, chosen)


def _defaults(settings: Settings) -> dict[str, Any]:
    """What a deployment may set otherwise with ``celery --config MODULE``.

    Read when Celery first asks for its settings: its command line names the module after it has loaded the app.
    """
    defaults: dict[str, Any] = {
        "task_default_queue": settings.queue,
        "result_expires": settings.result_ttl,
        # What lies at a worker whose processes are busy is not with another one that has nothing to do.
        "worker_prefetch_multiplier": settings.prefetch,
        "broker_connection_retry_on_startup": True,
        # A worker waits for a broker that is away, or that refuses because it is full, for as long as that lasts.
        "broker_connection_max_retries": None,
        "broker_channel_error_retry": True,
    }
    module = os.environ.get("CELERY_CONFIG_MODULE")
    given = vars(importlib.import_module(module)) if module else {}
    left = {name: value for name, value in defaults.items() if name not in given}
    broker: dict[str, Any] = dict(settings.broker_options)
    if settings.broker.startswith(("redis", "sentinel")):
        # JSON as it is: base64 adds a third to every message.
        broker["body_encoding"] = None
    if "broker_transport_options" not in given or settings.broker_options:
        left["broker_transport_options"] = {**broker, **given.get("broker_transport_options", {})}
    if settings.backend_options:
        left["result_backend_transport_options"] = {
            **settings.backend_options,
            **given.get("result_backend_transport_options", {}),
        }
    return left


def setup(app: Celery, settings: Settings | None = None) -> Celery:
    """Adds the engine to an app: its tasks, and heartbeats in the workers that run it.

    Args:
        app: the owner's app; its broker and result backend are used as they are, except that messages must be JSON.
        settings: where runs and content live; the environment's by default.

    Raises:
        ConfigError: Celery does not know the broker, or cannot load the result backend.
    """
    chosen = settings or load_settings()
    check_backend(app)
    return _install(app, chosen)


def _install(app: Celery, settings: Settings) -> Celery:
    def runtime() -> Runtime:
        return runtime_of(app, settings)

    app.add_defaults({"worker_consumer": "graflow_celery.celery_backend.steady:SteadyConsumer"})
    tasks.register(app, runtime)
    heartbeat.install(app, runtime)
    stopping.install()
    children.install(app)
    sharing.install(app, settings.shared_cache_bytes)
    collecting.install(app, settings)
    tracing_ends.install(lambda: runtime().traces.prepare())
    return app


def runtime_of(app: Celery, settings: Settings) -> Runtime:
    """The process's runtime for an app, made when it is first asked for."""
    return _RUNTIMES.get(app, settings)
