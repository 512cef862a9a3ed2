"""``graflow-celery health``: a probe that asks no server and loads next to nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from graflow_celery.embedded import EmbeddedServer
from graflow_celery.testing import wait_until
from tests.e2e.shell import Shell

WORKER = ("worker", "--pool", "solo", "--without-mingle", "--without-gossip", "-n", "mine@%h", "-l", "INFO")
ROOT = Path(__file__).parents[2]


def probe(shell: Shell, *arguments: str) -> tuple[int, str]:
    line = [sys.executable, "-m", "graflow_celery.cli.entry", "health", *arguments]
    done = subprocess.run(line, env=shell.env, cwd=shell.home, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.workers
def test_a_worker_is_healthy_until_it_hangs_and_whatever_its_server_does(lonely_shell: Shell, tmp_path: Path) -> None:
    lonely_shell.env["TMPDIR"] = str(tmp_path)
    assert probe(lonely_shell)[0] == 1
    with EmbeddedServer(tmp_path / "data") as server:
        lonely_shell.env["GRAFLOW_CELERY_REDIS_URL"] = server.url
        with lonely_shell.start(*WORKER) as worker:
            worker.says("ready.")
            wait_until(lambda: probe(lonely_shell, "--ready")[0] == 0, description="a beat that reached the server")
            code, text = probe(lonely_shell, "--worker", f"mine@{os.uname().nodename}")
            assert (code, text.count("\n")) == (0, 1)
            os.kill(worker.process.pid, signal.SIGSTOP)
            wait_until(lambda: probe(lonely_shell)[0] == 1, description="three beats to be missed")
            os.kill(worker.process.pid, signal.SIGCONT)
            wait_until(lambda: probe(lonely_shell)[0] == 0, description="the next beat")
            os.kill(server.process.pid, signal.SIGSTOP)
            try:
                wait_until(lambda: probe(lonely_shell, "--ready")[0] == 1, description="the server to be missed")
                assert probe(lonely_shell)[0] == 0
            finally:
                os.kill(server.process.pid, signal.SIGCONT)
            worker.process.send_signal(signal.SIGTERM)
            assert worker.wait(20).code == 0
            assert "no file of a worker" in probe(lonely_shell)[1]


def test_a_monitor_is_probed_too(lonely_shell: Shell, server: EmbeddedServer, tmp_path: Path) -> None:
    lonely_shell.env |= {"GRAFLOW_CELERY_REDIS_URL": server.url, "GRAFLOW_CELERY_HEALTH_FILE": f"{tmp_path}/beat"}
    with lonely_shell.start("monitor") as monitor:
        monitor.says("leads the monitors")
        wait_until(lambda: probe(lonely_shell, "--ready")[0] == 0, description="the monitor's beat")
        monitor.process.kill()
        monitor.process.wait(10)
        assert "is gone" in probe(lonely_shell)[1]


def test_the_probe_loads_no_library(lonely_shell: Shell) -> None:
    script = (
        "import sys; sys.argv[1:] = ['health', '--worker', 'nobody']\n"
        "from graflow_celery.cli.entry import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 1\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} - {'__main__', *sys.stdlib_module_names}))"
    )
    line = [sys.executable, "-S", "-c", script]
    env = {**lonely_shell.env, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, env=env, cwd=lonely_shell.home, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.splitlines()[-1] == "['graflow_celery']"


def test_the_script_begins_where_the_probe_is_answered() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"] == {"graflow-celery": "graflow_celery.cli.entry:main"}


def test_wrong_use_is_told_as_by_any_command(lonely_shell: Shell) -> None:
    assert lonely_shell("health", "--max-age", "soon").code == 2
    assert "--ready" in lonely_shell("health", "--help").out
    assert lonely_shell("health", "--worker", "nobody").code == 1
