"""``graflow-celery submit``, ``runs``, ``show``, ``watch``, ``cancel`` and ``graph``."""

from __future__ import annotations

import json
import signal

import pytest

from graflow_celery import Run, RunStatus, Settings
from tests.e2e.shell import Shell
from tests.e2e.workflows import FAILING, FAILING_GROUP, GREETING, GROWING, SLOW

workers = pytest.mark.workers


def submit(shell: Shell, name: str, text: str, *more: str) -> str:
    shell.write(f"{name}.py", text)
    answer = shell("submit", name, *more)
    assert (answer.code, answer.err) == (0, "")
    run_id, rest = answer.out.split("\n", 1)
    assert rest == ""
    return run_id


@workers
def test_submit_prints_the_id_alone_and_watch_follows_it(shell: Shell, graflow_settings: Settings) -> None:
    run_id = submit(shell, "greeting", GREETING, "--param", "ending=!")
    answer = shell("watch", run_id)
    assert (answer.code, answer.err) == (0, "")
    assert f"succeeded  greeting  run {run_id}" in answer.out
    assert "'name0! name1! name2! name0!!'" in answer.out
    assert Run.get(run_id, graflow_settings).status is RunStatus.SUCCEEDED


@workers
def test_an_id_submitted_twice_starts_one_run(shell: Shell) -> None:
    name = submit(shell, "greeting", GREETING, "--run-id", "twice-the-same")
    assert shell("watch", name).code == 0
    assert submit(shell, "greeting", GREETING, "--run-id", "twice-the-same") == name
    listed = json.loads(shell("runs", "--json").out)
    assert [run["run"] for run in listed].count(name) == 1


@workers
def test_watch_ends_as_the_run_does(shell: Shell) -> None:
    run_id = submit(shell, "failing", FAILING)
    answer = shell("watch", run_id)
    assert answer.code == 1
    assert answer.err.splitlines()[0] == "error: BadRow: 'x;y' is no row"
    assert "failing.py:8 in parse:" in answer.err
    again = shell("watch", run_id, "--json")
    assert again.code == 1
    summary = json.loads(again.out.splitlines()[-1])
    assert (summary["status"], summary["error"]["message"]) == ("failed", "'x;y' is no row")


@workers
def test_an_interrupted_watch_leaves_the_run_alone(shell: Shell, graflow_settings: Settings) -> None:
    run_id = submit(shell, "slow", SLOW, "--param", "seconds=3")
    with shell.start("watch", run_id) as command:
        command.says("slow started")
        command.interrupt(signal.SIGINT)
        answer = command.wait(10)
    assert answer.code == 130
    assert answer.err == f"interrupted: The run goes on. Look again: graflow-celery watch {run_id}\n"
    assert Run.get(run_id, graflow_settings).wait(timeout=20) is RunStatus.SUCCEEDED


@workers
def test_cancel_ends_a_run_and_says_when_it_was_over(shell: Shell, graflow_settings: Settings) -> None:
    run_id = submit(shell, "slow", SLOW, "--param", "seconds=5")
    answer = shell("cancel", run_id, "--reason", "changed my mind")
    assert (answer.code, answer.out) == (0, f"cancelled {run_id}\n")
    run = Run.get(run_id, graflow_settings)
    assert (run.status, run.reason) == (RunStatus.CANCELLED, "changed my mind")
    again = shell("cancel", run_id)
    assert (again.code, again.out) == (0, f"{run_id} had ended before: cancelled\n")
    watched = shell("watch", run_id)
    assert watched.code == 1
    assert watched.complaint == ["error: Workflow cancelled: changed my mind"]


@workers
def test_show_folds_groups_and_tells_errors(shell: Shell) -> None:
    run_id = submit(shell, "failing_group", FAILING_GROUP)
    shell("watch", run_id)
    answer = shell("show", run_id)
    assert (answer.code, answer.err) == (0, "")
    lines = answer.out.splitlines()
    assert lines[0] == f"failed  failing_group  run {run_id}"
    begin, members = (next(line for line in lines if line.startswith(name)) for name in ("begin", "members"))
    assert lines.index(begin) < lines.index(members)
    assert begin.split()[1] == "succeeded"
    assert members.split()[1] == "failed"
    assert "6 succeeded" in members
    assert "6 failed" in members
    assert any(line.split(maxsplit=1) == ["m1", "ValueError: odd: 1"] for line in lines)

    told = json.loads(shell("show", run_id, "--json").out)
    assert (told["run"], told["status"], told["tasks"]) == (run_id, "failed", 13)
    assert told["nodes"]["m1"]["state"] == "failed"
    assert told["nodes"]["m2"]["state"] == "succeeded"
    assert told["errors"]["m11"] == "ValueError: odd: 11"


@workers
def test_show_counts_members_of_mapped_tasks_and_added_tasks(shell: Shell) -> None:
    run_id = submit(shell, "growing", GROWING)
    assert shell("watch", run_id).code == 0
    answer = shell("show", run_id)
    assert (answer.code, answer.err) == (0, "")
    rows = {line.strip().partition("  ")[0]: line for line in answer.out.splitlines()}
    assert rows["score"].endswith("3 succeeded, 1 failed")
    assert rows["+ added by grows"].endswith("1 succeeded")  # the group that holds them
    assert rows["score[2]"].split(maxsplit=1)[1] == "ValueError: no score for 2"
    told = json.loads(shell("show", run_id, "--json").out)
    assert told["nodes"]["score[1]"]["state"] == "succeeded"
    assert told["errors"] == {"score[2]": "ValueError: no score for 2"}


@workers
def test_runs_lists_the_newest_first(shell: Shell) -> None:
    first = submit(shell, "greeting", GREETING)
    second = submit(shell, "failing", FAILING)
    shell("watch", first)
    shell("watch", second)
    answer = shell("runs", "--count", "2")
    assert answer.code == 0
    heading, newest, older = answer.out.splitlines()
    assert heading.split() == ["run", "workflow", "status", "started", "took", "tasks", "failed", "reason"]
    assert newest.split()[:3] == [second, "failing", "failed"]
    assert newest.endswith("'clean' failed: BadRow: 'x;y' is no row")
    assert older.split()[:3] == [first, "greeting", "succeeded"]
    told = json.loads(shell("runs", "-n", "1", "--json").out)
    assert [(run["run"], run["failed"]) for run in told] == [(second, 1)]


@workers
@pytest.mark.parametrize("command", ["show", "watch", "cancel"])
def test_a_run_that_is_not_there(shell: Shell, command: str) -> None:
    answer = shell(command, "no-such-run")
    assert answer.code == 2
    assert answer.complaint[0].startswith("error: No run 'no-such-run' in the store.")


@pytest.mark.parametrize(
    ("form", "line"), [("text", "names  ->  greetings"), ("mermaid", "flowchart LR"), ("dot", 'digraph "greeting" {')]
)
def test_graph_draws_without_a_server(lonely_shell: Shell, form: str, line: str) -> None:
    lonely_shell.write("greeting.py", GREETING)
    answer = lonely_shell("graph", "greeting.py", "--format", form)
    assert (answer.code, answer.err) == (0, "")
    assert line in answer.out.splitlines()
    assert "greet3" in answer.out
