"""pytest-celery's setup and node API, with processes behind it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from pytest_celery import CeleryTestSetup, CeleryWorkerCluster

from graflow_celery import NoWorkerError, Settings, parallel, task, workflow
from graflow_celery.testing import wait_until
from graflow_celery.testing.nodes import started_worker
from graflow_celery.workflows import WorkflowContext

pytestmark = pytest.mark.workers


@task
def source() -> int:
    return 20


@task
def left(source: int) -> int:
    return source + 1


@task
def right(source: int) -> int:
    return source + 2


@task
def total(left: int, right: int) -> int:
    return left + right


@task
def gated(gate: str) -> int:
    """Notes its process, then waits for the gate to open."""
    Path(gate, "pid").write_text(str(os.getpid()), encoding="utf-8")
    wait_until(Path(gate, "open").exists, timeout=60, description="the gate to open")
    return os.getpid()


@pytest.fixture
def diamond() -> WorkflowContext:
    with workflow("diamond") as wf:
        source >> parallel(left, right) >> total
    return wf


def test_setup_is_ready_and_runs_a_workflow(
    process_celery_setup: CeleryTestSetup, process_celery_settings: Settings, diamond: WorkflowContext
) -> None:
    assert process_celery_setup.ready(ping=True, control=True, docker=True)
    assert len(process_celery_setup) == 3
    assert diamond.execute(backend="celery", settings=process_celery_settings, timeout=30) == 43


def test_a_killed_worker_is_restarted_and_runs_again(
    process_celery_setup: CeleryTestSetup, process_celery_settings: Settings, diamond: WorkflowContext
) -> None:
    worker = process_celery_setup.worker
    assert diamond.execute(backend="celery", settings=process_celery_settings, timeout=30) == 43
    first = worker.get_running_processes_info(["pid"])

    worker.kill()
    assert worker.container.status == "exited"
    assert not [info for info in first if psutil.pid_exists(info["pid"])]
    assert worker.get_running_processes_info() == []

    worker.restart()
    assert worker.ready()
    assert worker.container.status == "running"
    assert not {info["pid"] for info in first} & {info["pid"] for info in worker.get_running_processes_info()}
    assert diamond.execute(backend="celery", settings=process_celery_settings, timeout=30) == 43


def test_without_its_worker_a_run_is_refused(
    process_celery_setup: CeleryTestSetup, process_celery_settings: Settings, diamond: WorkflowContext
) -> None:
    process_celery_setup.worker.kill("SIGTERM", reload_container=False)
    assert process_celery_setup.worker.container.worker.process.wait(timeout=30) == 0
    with pytest.raises(NoWorkerError):
        diamond.execute(backend="celery", settings=process_celery_settings)


def test_a_task_ends_before_its_worker_does_at_sigterm(
    process_celery_setup: CeleryTestSetup, process_celery_settings: Settings, tmp_path: Path
) -> None:
    with workflow("gated") as wf:
        gated(task_id="only", gate=str(tmp_path))
    run = wf.submit(settings=process_celery_settings)
    wait_until((tmp_path / "pid").exists, timeout=30, description="the task to begin")
    process_celery_setup.worker.kill("SIGTERM")
    process_celery_setup.worker.wait_for_log("Warm shutdown")
    (tmp_path / "open").touch()
    assert process_celery_setup.worker.container.worker.process.wait(timeout=30) == 0
    assert run.details()["status"] == "succeeded"


def test_logs_and_names(process_celery_setup: CeleryTestSetup) -> None:
    worker = process_celery_setup.worker
    worker.assert_log_exists(f"{worker.hostname()} ready.")
    worker.assert_log_exists("graflow.node")
    worker.assert_log_does_not_exist("Traceback", timeout=1)
    control = process_celery_setup.app.control
    assert control.ping([worker.hostname()], timeout=10, limit=1) == [{worker.hostname(): {"ok": "pong"}}]
    assert (worker.worker_queue, worker.log_level) == ("celery", "INFO")
    process_celery_setup.broker.assert_log_exists("Ready to accept connections")
    main, *pool = worker.get_running_processes_info(["pid", "cmdline"])
    assert main["pid"] == worker.container.worker.process.pid
    assert len(pool) == 2
    assert worker.container.exec_run("python -c 'print(6 * 7)'") == (0, b"42\n")


def test_broker_restarts_under_a_worker(
    process_celery_setup: CeleryTestSetup, process_celery_settings: Settings, diamond: WorkflowContext
) -> None:
    process_celery_setup.broker.restart()
    assert process_celery_setup.broker.container.client.ping()
    assert diamond.execute(backend="celery", settings=process_celery_settings, timeout=60) == 43


class TestTwoWorkers:
    """A cluster of another size, by overriding the one fixture."""

    @pytest.fixture
    def process_celery_worker_cluster(self, process_celery_settings: Settings) -> Iterator[CeleryWorkerCluster]:
        settings = process_celery_settings
        with started_worker(settings, "one", 1) as one, started_worker(settings, "two", 1) as two:
            yield CeleryWorkerCluster(one, two)

    def test_one_goes_on_without_the_other(
        self, process_celery_setup: CeleryTestSetup, process_celery_settings: Settings, diamond: WorkflowContext
    ) -> None:
        one, two = process_celery_setup.worker_cluster
        assert one.hostname() != two.hostname()
        one.kill()
        assert diamond.execute(backend="celery", settings=process_celery_settings, timeout=30) == 43
        assert (one.container.status, two.container.status) == ("exited", "running")


def test_the_fixtures_for_containers_are_untouched(tmp_path: Path) -> None:
    """A test of pytest-celery's own setup is collected, with its Docker-backed nodes, beside ours."""
    (tmp_path / "test_docker.py").write_text("def test_it(celery_setup): ...\n", encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "graflow_celery.testing.nodes", "--setup-plan", str(tmp_path)]
    plan = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert plan.returncode == 0, plan.stdout
    assert all(f"['{name}']" in plan.stdout for name in ("celery_setup_worker", "celery_redis_broker"))
    assert "process_celery" not in plan.stdout
