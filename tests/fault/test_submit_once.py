"""A run's id is an idempotency key: whoever submits it again gets the run that is there, and changes nothing."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from graflow_celery import Run, RunStatus, Settings, TaskExecutionContext, WorkflowContext, task, workflow
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.distributed import new_run_id
from graflow_celery.errors import ConfigError, RunExistsError
from graflow_celery.runs import client_runtime
from graflow_celery.testing import wait_until

pytestmark = pytest.mark.workers


@task(inject_context=True)
def gated(context: TaskExecutionContext, gate: str) -> str:
    wait_until(Path(gate).exists, timeout=60, description="the gate to open")
    return str(context.get_channel().get("color"))


def painted(gate: Path) -> WorkflowContext:
    with workflow("painted") as wf:
        wf.add(gated(gate=str(gate)))
    return wf


def test_the_first_one_wins_wholly(graflow_settings: Settings, tmp_path: Path) -> None:
    wf, run_id = painted(tmp_path / "open"), new_run_id()
    first = wf.submit(run_id=run_id, initial_channel={"color": "red"}, settings=graflow_settings)
    again = wf.submit(
        run_id=run_id, initial_channel={"color": "blue", "more": 1}, max_steps=1, timeout=0.1, settings=graflow_settings
    )
    assert (again.id, again.graph_hash, again.uploaded_blobs) == (run_id, first.graph_hash, 0)
    (tmp_path / "open").touch()
    assert again.wait(timeout=30) is RunStatus.SUCCEEDED
    assert first.result() == "red"
    assert first.context.get_channel().keys() == ["color"]
    ended = wf.submit(run_id=run_id, settings=graflow_settings)
    assert (ended.status, ended.result()) == (RunStatus.SUCCEEDED, "red"), "also when it has ended"
    assert [record["event"] for record in first.events()].count("run_started") == 1


def test_another_workflow_under_its_id_is_refused(graflow_settings: Settings, tmp_path: Path) -> None:
    run_id = new_run_id()
    first = painted(tmp_path / "open").submit(
        run_id=run_id, initial_channel={"color": "red"}, settings=graflow_settings
    )
    with workflow("other") as wf:
        wf.add(gated(task_id="elsewhere", gate=str(tmp_path)))
    with pytest.raises(RunExistsError, match=r"Workflow 'other' .* belongs to a run of workflow 'painted'"):
        wf.submit(run_id=run_id, initial_channel={"color": "blue"}, settings=graflow_settings)
    with pytest.raises(RunExistsError, match="this one, with another graph"):
        painted(tmp_path / "changed").submit(run_id=run_id, settings=graflow_settings)
    (tmp_path / "open").touch()
    assert first.wait(timeout=30) is RunStatus.SUCCEEDED
    assert first.result() == "red"


def test_many_at_the_same_time_start_one_run(graflow_settings: Settings, tmp_path: Path) -> None:
    wf, run_id = painted(tmp_path / "open"), new_run_id()
    together = threading.Barrier(6)
    runs: list[Run] = []

    def submit(number: int) -> None:
        together.wait()
        runs.append(
            wf.submit(run_id=run_id, initial_channel={"color": number, f"c{number}": 1}, settings=graflow_settings)
        )

    threads = [threading.Thread(target=submit, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run.id for run in runs] == [run_id] * 6
    (tmp_path / "open").touch()
    assert runs[0].wait(timeout=30) is RunStatus.SUCCEEDED
    channel = runs[0].context.get_channel()
    assert sorted(channel.keys()) == sorted(["color", f"c{channel.get('color')}"]), "the values of one of them"
    told = [record["event"] for record in runs[0].events()]
    assert (told.count("run_started"), told.count("node_started")) == (1, 1)


def test_what_its_client_did_not_send_the_second_one_sends(graflow_settings: Settings, tmp_path: Path) -> None:
    """The grace after which the monitor would send it is longer than the test waits."""
    patient = graflow_settings.model_copy(update={"dispatch_grace": 600.0})
    wf, run_id = painted(tmp_path / "open"), new_run_id()
    runtime: Runtime = client_runtime(patient)
    executor = runtime.engine.executor

    class Dead:
        def send(self, *_: object) -> None: ...

        def share(self, *_: object) -> None: ...

    runtime.engine.executor = Dead()
    try:
        wf.submit(run_id=run_id, initial_channel={"color": "red"}, settings=patient)
    finally:
        runtime.engine.executor = executor
    runtime.client.zrem(runtime.keys.active, run_id)  # it died before it noted that too
    (tmp_path / "open").touch()
    run = wf.submit(run_id=run_id, initial_channel={"color": "blue"}, settings=patient)
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert run.result() == "red"


@pytest.mark.parametrize("name", ["", " ", "a b", "{tag}", "a\nb", "-x", "x" * 129, "ä"])
def test_an_id_that_no_run_can_have_is_refused(graflow_settings: Settings, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="a run's id is made of letters, digits"):
        painted(tmp_path).submit(run_id=name, settings=graflow_settings)
