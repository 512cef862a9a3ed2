"""A server and workers as child processes of this one, which never outlive it."""

from __future__ import annotations

from graflow_celery.embedded.cluster import EmbeddedCluster
from graflow_celery.embedded.server import EmbeddedServer, find_server
from graflow_celery.embedded.workers import EmbeddedWorker, EmbeddedWorkers

__all__ = ["EmbeddedCluster", "EmbeddedServer", "EmbeddedWorker", "EmbeddedWorkers", "find_server"]
