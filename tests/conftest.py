"""What all suites share: one cluster, started when a test first asks for it, and no process left when all is done."""

from __future__ import annotations

import os
import secrets

import psutil  # type: ignore[import-untyped]
import pytest

from graflow_celery.testing import wait_until

pytest_plugins = ["graflow_celery.testing.fixtures"]

MARK = "GRAFLOW_TEST_SESSION"


def pytest_configure(config: pytest.Config) -> None:
    """Marks every process that the tests start, by an environment variable that they inherit."""
    os.environ[MARK] = secrets.token_hex(8)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the session if a process that a test started still runs."""
    try:
        wait_until(lambda: not marked_processes(os.environ[MARK]), timeout=10, description="processes to end")
    except TimeoutError:
        for process in marked_processes(os.environ[MARK]):
            session.config.get_terminal_writer().line(f"\nLEFT RUNNING: {process}", red=True)
            process.kill()
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def marked_processes(mark: str) -> list[psutil.Process]:
    """The processes, other than this one, that have a mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(MARK) == mark and is_alive(process):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def is_alive(process: psutil.Process) -> bool:
    return bool(process.status() != psutil.STATUS_ZOMBIE)
