"""Fixtures for pytest. In the conftest.py: ``pytest_plugins = ["graflow_celery.testing.fixtures"]``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.settings import Settings
from graflow_celery.testing.cluster import embedded_cluster


@pytest.fixture(scope="session")
def graflow_cluster() -> Iterator[EmbeddedCluster]:
    """One server and one worker node that runs two tasks at a time, for the whole session.

    Override it for another size: ``with embedded_cluster(workers=3) as cluster: yield cluster``.
    """
    with embedded_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def graflow_settings(graflow_cluster: EmbeddedCluster) -> Settings:
    """The settings with which clients reach the session's cluster."""
    return graflow_cluster.settings


@pytest.fixture
def graflow_environment(graflow_cluster: EmbeddedCluster, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The session's cluster in the environment, for as long as the test runs."""
    for name, value in graflow_cluster.env.items():
        monkeypatch.setenv(name, value)
    return graflow_cluster.env
