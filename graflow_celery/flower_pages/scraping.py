"""Flower's ``/metrics``, answered from a thread: the metrics of runs are read from the store at a scrape, and a store
that is slow or away must not hold up Flower's one event loop, which hears workers' events and serves all pages.
"""

from __future__ import annotations

import prometheus_client
from flower import urls
from flower.views import monitor

from graflow_celery.threads import call


class Metrics(monitor.Metrics):
    """What Flower's own does, off the event loop."""

    async def get(self) -> None:
        self.application.purge_offline_worker_metrics()
        self.write(await call(prometheus_client.generate_latest))
        self.set_header("Content-Type", "text/plain")


def add() -> None:
    """Puts it before Flower's own, once. Before Flower's application is made."""
    if (r"/metrics", Metrics) not in urls.handlers:
        urls.handlers.insert(0, (r"/metrics", Metrics))
