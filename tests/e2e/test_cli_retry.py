"""``graflow-celery retry``, and ``submit --run-id``."""

from __future__ import annotations

import json

import pytest

from graflow_celery import Run, RunStatus, Settings
from tests.e2e.shell import Shell
from tests.e2e.test_cli_inspect import submit
from tests.e2e.workflows import GREETING, SLOW

pytestmark = pytest.mark.workers

MENDABLE = """
    from pathlib import Path

    from graflow_celery import ParallelGroup, task, workflow

    @task
    def load():
        return 2

    @task
    def part(load, number, mended):
        if number == 1 and not Path(mended).exists():
            raise ValueError("part 1 is broken")
        return load * number

    @task
    def total(parts):
        return sum(parts.values())

    with workflow("mendable") as wf:
        parts = [part(task_id=f"part{number}", number=number) for number in range(3)]
        load >> ParallelGroup(parts, name="parts") >> total
"""

WAITING = """
    from graflow_celery import task, workflow

    @task(queue="of-nobody")
    def waiting():
        pass

    with workflow("waiting") as wf:
        wf.add(waiting)
"""


def failed(shell: Shell) -> str:
    run_id = submit(shell, "mendable", MENDABLE, "--param", f"mended={shell.home / 'mended'}")
    assert shell("watch", run_id).code == 1
    return run_id


def test_a_failed_run_is_retried_and_followed_to_its_end(shell: Shell) -> None:
    run_id = failed(shell)
    dry = shell("retry", run_id, "--dry-run")
    assert (dry.code, dry.err) == (0, "")
    assert dry.out.splitlines()[0] == f"would retry {run_id}"
    assert [line.split(maxsplit=1) for line in dry.out.splitlines()[1:]] == [
        ["again", "2 tasks: part1, total"],
        ["kept", "3 tasks: load, part0, part2"],
    ]
    assert shell("show", run_id).out.startswith("failed")
    shell.write("mended", "")
    told = json.loads(shell("retry", run_id, "--json").out)
    assert told == {
        "run": run_id,
        "again": ["part1", "total"],
        "kept": ["load", "part0", "part2"],
        "dry_run": False,
    }
    answer = shell("watch", run_id)
    assert (answer.code, answer.err) == (0, "")
    assert f"succeeded  mendable  run {run_id}" in answer.out
    assert "5 run" in answer.out
    shown = json.loads(shell("show", run_id, "--json").out)
    assert (shown["reason"], shown["failed"], shown["errors"]) == ("", 0, {})
    assert shown["nodes"]["part1"]["attempt"] == 2


def test_from_a_node_although_it_succeeded(shell: Shell, graflow_settings: Settings) -> None:
    shell.write("mended", "")
    run_id = submit(shell, "mendable", MENDABLE, "--param", f"mended={shell.home / 'mended'}")
    assert shell("watch", run_id).code == 0
    answer = shell("retry", run_id, "--from", "part2", "--from", "part0")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[0] == f"retried {run_id}"
    assert answer.out.splitlines()[-1] == f"Follow it: graflow-celery watch {run_id}"
    assert "3 tasks: part0, part2, total" in answer.out
    assert Run.get(run_id, graflow_settings).wait(timeout=30) is RunStatus.SUCCEEDED
    assert Run.get(run_id, graflow_settings).result() == 6


def test_what_cannot_be_retried_is_refused(shell: Shell, graflow_settings: Settings) -> None:
    shell.write("waiting.py", WAITING)
    running = shell("submit", "waiting", "--queue-anyway").out.strip()  # which warns that nobody consumes its queue
    answer = shell("retry", running)
    assert answer.code == 2
    assert answer.complaint[0].startswith(f"error: Run {running} was not retried: it is running and goes on. End it ")
    assert Run.get(running, graflow_settings).cancel("the test is done with it")
    done = submit(shell, "greeting", GREETING)
    assert shell("watch", done).code == 0
    nothing = shell("retry", done)
    assert nothing.code == 2
    assert "nothing of it failed or was cut off" in nothing.complaint[0]
    unknown = shell("retry", done, "--from", "nowhere")
    assert unknown.code == 2
    assert "no node 'nowhere'" in unknown.complaint[0]
    missing = shell("retry", "no-such-run")
    assert (missing.code, missing.complaint[0][:36]) == (2, "error: No run 'no-such-run' in the s")


def test_an_id_of_another_workflow_is_refused(shell: Shell) -> None:
    submit(shell, "greeting", GREETING, "--run-id", "of-greeting")
    shell.write("slow.py", SLOW)
    answer = shell("submit", "slow", "--run-id", "of-greeting")
    assert answer.code == 2
    assert answer.complaint[0].startswith(
        "error: Workflow 'slow' was not submitted: run id 'of-greeting' belongs to a run of workflow 'greeting'."
    )
