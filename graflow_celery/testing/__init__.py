"""For tests of workflows, yours and ours: a workflow under test on real workers in three lines.

::

    from graflow_celery.testing import embedded_cluster

    def test_etl():
        with embedded_cluster() as cluster:
            assert etl.execute(backend="celery", settings=cluster.settings, timeout=30) == "published"

With pytest, one cluster for the whole session, started when the first test asks for it::

    # conftest.py
    pytest_plugins = ["graflow_celery.testing.fixtures"]

    # test_etl.py
    def test_etl(graflow_settings):
        assert etl.execute(backend="celery", settings=graflow_settings, timeout=30) == "published"

``graflow_cluster`` is the cluster itself; ``graflow_environment`` sets the environment variables, for code under test
that reads its settings from there. With pytest-celery, ``graflow_celery.testing.nodes`` has a ``process_celery_setup``
whose broker, backend and worker are processes instead of containers.

pytest and pytest-celery are loaded only with the names that need them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from graflow_celery.testing.cluster import embedded_cluster
from graflow_celery.testing.waiting import wait_until

if TYPE_CHECKING:
    from graflow_celery.testing.fixtures import graflow_cluster as graflow_cluster
    from graflow_celery.testing.fixtures import graflow_environment as graflow_environment
    from graflow_celery.testing.fixtures import graflow_settings as graflow_settings

__all__ = ["embedded_cluster", "graflow_cluster", "graflow_environment", "graflow_settings", "wait_until"]

_FIXTURES = ("graflow_cluster", "graflow_environment", "graflow_settings")


def __getattr__(name: str) -> Any:
    if name in _FIXTURES:
        return getattr(importlib.import_module("graflow_celery.testing.fixtures"), name)
    raise AttributeError(f"module 'graflow_celery.testing' has no attribute '{name}'")
