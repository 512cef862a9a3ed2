"""Prometheus metrics of all runs of a store: on Flower's ``/metrics``, and from a monitor.

This module costs nothing: prometheus_client, which the extra ``metrics`` installs and Flower brings along, is loaded
when something is registered or served.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import click
from celery import Celery, signals

from graflow_celery.celery_backend.app import runtime_of
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.errors import ConfigError, UnavailableError
from graflow_celery.settings import Settings


def register(registry: Any, runtime: Runtime) -> None:
    """Has ``registry``, a ``prometheus_client.CollectorRegistry``, tell the metrics of a runtime's store.

    Raises:
        UnavailableError: prometheus_client is not installed. ValueError: the registry has them already.
    """
    registry.register(_collector_module().RunCollector(runtime, runtime.settings.metrics_labels))


def serve(runtime: Runtime, port: int, address: str) -> Callable[[], None]:
    """Serves the metrics, with those of this process, at ``http://ADDRESS:PORT/metrics``; returns what ends that.

    Raises:
        UnavailableError: prometheus_client is not installed. ConfigError: the address cannot be listened at.
    """
    _collector_module()
    client: Any = importlib.import_module("prometheus_client")
    registry = client.CollectorRegistry()
    for kind in (client.ProcessCollector, client.PlatformCollector, client.GCCollector):
        kind(registry=registry)
    register(registry, runtime)
    try:
        server, thread = client.start_http_server(port, address, registry)
    except (OSError, OverflowError) as error:
        where = f"Metrics cannot be served at {address}:{port} ({error})"
        raise ConfigError(f"{where}. Choose another: --metrics-port, or metrics_address in the settings.") from error

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=2.0)

    return end


def install(app: Celery, settings: Settings) -> Celery:
    """Has Flower tell the metrics where its own are, when it is started for ``app``; returns the app."""
    done: list[bool] = []

    def starting(sender: Any = None, **_: Any) -> None:
        context = click.get_current_context(silent=True)
        if sender is app and context is not None and context.info_name == "flower" and not done:
            done.append(True)
            register(importlib.import_module("prometheus_client").REGISTRY, runtime_of(app, settings))

    # Flower sends no signal of its own; this one it brings about before it listens.
    signals.import_modules.connect(starting, weak=False)
    return app


def _collector_module() -> Any:
    try:
        return importlib.import_module("graflow_celery.metrics.collector")
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("prometheus_client"):
            raise
        raise UnavailableError(
            "prometheus_client is not installed. Install it: pip install 'graflow-celery[metrics]'"
        ) from None
