"""What all suites share: one cluster, started when a test first asks for it, and no process left when all is done."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.testing import embedded_cluster, wait_until
from tests import large_messages
from tests.processes import marked_processes

pytest_plugins = ["graflow_celery.testing.fixtures", "graflow_celery.testing.nodes"]

MARK = "GRAFLOW_TEST_SESSION"
TIMETABLE = large_messages.Timetable()


@pytest.fixture(scope="session")
def graflow_cluster() -> Iterator[EmbeddedCluster]:
    """As that of `graflow_celery.testing.fixtures`; and no test on it sends a Celery message of over a kilobyte."""
    with embedded_cluster() as cluster, large_messages.watched(cluster.settings.redis_url, TIMETABLE):
        yield cluster


def pytest_runtest_logstart(nodeid: str) -> None:
    TIMETABLE.begin(nodeid)


def pytest_configure(config: pytest.Config) -> None:
    """Marks every process that the tests start, by an environment variable that they inherit."""
    os.environ[MARK] = secrets.token_hex(8)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the session if a process that a test started still runs, and ends it."""
    mark = os.environ[MARK]
    try:
        wait_until(lambda: not marked_processes(MARK, mark), description="the tests' processes to end")
    except TimeoutError:
        terminal = session.config.get_terminal_writer()
        for process in marked_processes(MARK, mark):
            terminal.line(f"\nLeft running by a test: {process}", red=True)
            process.kill()
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
