"""The Procfile's processes come up together under honcho, serve a run, and leave nothing behind."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from graflow_celery import Settings, task, workflow
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.environment import settings_environment
from graflow_celery.redis_backend.client import Scripts, connect
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.liveness import Liveness
from graflow_celery.settings import load_settings
from graflow_celery.testing import wait_until
from tests.e2e.markdown import ROOT
from tests.processes import marked_processes

MARK = "GRAFLOW_TEST_PROCFILE"
START_TIMEOUT = 60
STOP_TIMEOUT = 30
FLOWER_OFFSET = 200  # honcho gives its third process the port that it was told, plus 200

pytestmark = [pytest.mark.workers, pytest.mark.slow]


@task
def answer() -> int:
    return 42


@pytest.fixture
def settings() -> Iterator[Settings]:
    with EmbeddedServer() as server:
        yield load_settings(redis_url=server.url, broker_url="", result_backend="")


@contextmanager
def honcho(settings: Settings, directory: Path, port: int) -> Iterator[tuple[subprocess.Popen[bytes], Path, str]]:
    """The Procfile under honcho; gives its process, its log and the mark that all of its children carry."""
    mark = secrets.token_hex(8)
    log = directory / "honcho.log"
    env = {
        **os.environ,
        **settings_environment(settings),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        MARK: mark,
    }
    command = [sys.executable, "-m", "honcho", "start", "--procfile", str(ROOT / "Procfile")]
    command += ["--app-root", str(directory), "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=directory, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        yield process, log, mark
    finally:
        for left in marked_processes(MARK, mark):
            left.kill()
        process.wait(timeout=STOP_TIMEOUT)


def test_the_procfile_comes_up_serves_and_goes(settings: Settings, tmp_path: Path) -> None:
    client = connect(settings.redis_url)
    alive = Liveness(client, Scripts(client), Keys(settings.key_prefix), settings.heartbeat_timeout)
    port = free_port()
    with honcho(settings, tmp_path, port - FLOWER_OFFSET) as (process, log, mark):

        def up(condition: bool) -> bool:
            assert process.poll() is None, f"honcho ended:\n{log.read_text()}"
            return condition

        wait_until(lambda: up(bool(alive.workers())), timeout=START_TIMEOUT, description="the worker's lease")
        wait_until(lambda: up(alive.leader() is not None), timeout=START_TIMEOUT, description="a monitor's lease")
        wait_until(
            lambda: up("monitor on prefix" in log.read_text()), timeout=START_TIMEOUT, description="the monitor's log"
        )
        wait_until(lambda: up(is_healthy(port)), timeout=START_TIMEOUT, description="Flower's health check")
        with workflow("deployed") as wf:
            wf.add(answer(task_id="answered"))
        assert wf.execute(backend="celery", settings=settings, timeout=30) == 42
        # The run ends with its commit; its message is acknowledged a moment later, when the pool has told the worker.
        wait_until(lambda: client.hlen("unacked") == 0, timeout=STOP_TIMEOUT, description="the acknowledgement")

        process.send_signal(signal.SIGTERM)
        process.wait(timeout=STOP_TIMEOUT)
        wait_until(
            lambda: not marked_processes(MARK, mark),
            timeout=STOP_TIMEOUT,
            description="the Procfile's processes to end",
        )
        assert "Traceback" not in log.read_text(), log.read_text()
    assert alive.workers() == [], "a worker that ends gives its lease up"
    client.close()


def test_the_procfile_names_worker_monitor_and_flower() -> None:
    lines = [line for line in (ROOT / "Procfile").read_text().splitlines() if line and not line.startswith("#")]
    assert [line.partition(":")[0] for line in lines] == ["worker", "monitor", "flower"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthcheck", timeout=2) as response:
            return bool(response.read() == b"OK")
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
