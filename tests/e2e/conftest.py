"""Shells for the tests of the command line: one on the session's cluster, one with no server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from graflow_celery.embedded import EmbeddedCluster, EmbeddedServer
from tests.e2e.shell import Shell

NOWHERE = {"GRAFLOW_CELERY_REDIS_URL": "redis://127.0.0.1:1/0"}


@pytest.fixture
def shell(graflow_cluster: EmbeddedCluster, tmp_path: Path) -> Shell:
    """A shell from which the session's cluster is found."""
    return Shell(tmp_path, graflow_cluster.env)


@pytest.fixture
def lonely_shell(tmp_path: Path) -> Shell:
    """A shell from which no server is found."""
    return Shell(tmp_path, NOWHERE)


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """A server of the test's own, without workers."""
    with EmbeddedServer() as started:
        yield started
