"""``graflow-celery run``: here, on workers, and on workers of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import termios
from pathlib import Path

import pytest

from graflow_celery import Run, RunStatus, Settings
from graflow_celery.testing import wait_until
from tests.e2e.shell import PROGRAM, Shell
from tests.e2e.workflows import FAILING, FAILING_GROUP, GREETING, SCORES, SLOW

GREETINGS = "name0! name1! name2! name0!"


def run_id_in(text: str) -> str:
    found = re.search(r"run ([0-9a-f]{16})", text)
    assert found, text
    return found[1]


def test_here_in_threads_without_any_server(lonely_shell: Shell) -> None:
    lonely_shell.write("greeting.py", GREETING)
    answer = lonely_shell("run", "greeting")
    assert (answer.code, answer.err) == (0, "")
    assert "greetings: 4/4, done in" in answer.out
    assert re.search(r"^succeeded  greeting  \d+ ms$", answer.out, re.MULTILINE)
    assert re.search(r"^  tasks +6 run$", answer.out, re.MULTILINE)
    assert re.search(rf"^  result +'{GREETINGS}\.'$", answer.out, re.MULTILINE)


def test_parameters_reach_the_channel(lonely_shell: Shell) -> None:
    lonely_shell.write("greeting.py", GREETING)
    answer = lonely_shell("run", "greeting.py:wf", "--param", "ending=?", "--param", "count=1", "--no-progress")
    assert answer.code == 0
    assert "'name0! name0! name0! name0!?'" in answer.out
    assert len(answer.out.splitlines()) <= 5


def test_a_run_may_start_in_the_middle(lonely_shell: Shell) -> None:
    lonely_shell.write("failing.py", FAILING)
    answer = lonely_shell("run", "failing", "--start", "clean", "--param", "fetch=middle")
    assert answer.code == 1
    assert "BadRow: 'middle' is no row" in answer.err


@pytest.mark.workers
def test_on_workers_a_graph_is_uploaded_once(shell: Shell) -> None:
    shell.write("greeting.py", GREETING.replace('"greeting"', f'"greeting_{os.getpid()}"'))
    first = shell("run", "greeting", "--backend", "celery")
    second = shell("run", "greeting", "--backend", "celery")
    for answer in (first, second):
        assert (answer.code, answer.err) == (0, "")
        assert f"'{GREETINGS}.'" in answer.out
    assert re.search(r"uploads +\d+ blobs?, [\d.]+ K?B", first.out)
    assert re.search(r"uploads +none", second.out)


@pytest.mark.workers
def test_on_workers_of_its_own_and_nothing_stays(lonely_shell: Shell) -> None:
    lonely_shell.write("jobs/beside.py", "WORD = 'from beside'")
    lonely_shell.write(
        "jobs/etl.py",
        """
        from graflow_celery import task, workflow
        import beside

        @task
        def word():
            return beside.WORD

        @task(queue="other")
        def twice(word):
            return word * 2

        with workflow("etl") as wf:
            word >> twice
        """,
    )
    with lonely_shell.start("run", "jobs/etl.py", "--backend", "embedded", "--workers", "1") as command:
        answer = command.wait()
        assert (answer.code, answer.err) == (0, "")
        assert "'from besidefrom beside'" in answer.out
        assert command.left_running() == []


@pytest.mark.workers
def test_json_is_one_object_a_line(shell: Shell) -> None:
    shell.write("greeting.py", GREETING)
    answer = shell("run", "greeting", "--backend", "celery", "--json")
    assert (answer.code, answer.err) == (0, "")
    *events, summary = [json.loads(line) for line in answer.out.splitlines()]
    assert [events[0]["event"], events[-1]["event"]] == ["run_submitted", "run_succeeded"]
    assert {event["run"] for event in events} == {summary["run"]}
    assert (summary["event"], summary["status"], summary["result"]) == ("summary", "succeeded", GREETINGS + ".")
    assert summary["tasks"] == {"succeeded": 6, "failed": 0, "skipped": 0}


@pytest.mark.workers
@pytest.mark.parametrize("backend", ["local", "celery"])
def test_a_failed_task_shows_what_where_and_the_users_own_lines(shell: Shell, backend: str) -> None:
    shell.write("failing.py", FAILING)
    answer = shell("run", "failing.py", "--backend", backend)
    assert answer.code == 1
    lines = answer.err.splitlines()
    assert lines[0] == "error: BadRow: 'x;y' is no row"
    on = r" on \S+" if backend == "celery" else ""
    assert re.fullmatch(rf"  in task 'clean'{on}, attempt 2", lines[1])
    # Equal functions are stored once: on workers the directory may be that of another test's file.
    first, second = lines[2:]
    assert re.fullmatch(r"    \S*failing\.py:16 in clean:  return parse\(fetch\)", first)
    assert re.fullmatch(r"    \S*failing\.py:8 in parse:  raise BadRow.*", second)
    assert "failed  failing" in answer.out
    assert "Traceback (most recent call last)" in shell("run", "failing.py", "--backend", backend, "--traceback").err


@pytest.mark.workers
@pytest.mark.parametrize("backend", ["local", "celery"])
def test_a_failed_group_shows_its_first_members(shell: Shell, backend: str) -> None:
    shell.write("failing_group.py", FAILING_GROUP)
    answer = shell("run", "failing_group.py", "--backend", backend)
    assert answer.code == 1
    lines = answer.err.splitlines()
    assert lines[:5] == [
        "error: Parallel group 'members': 6 of 12 members failed, and policy 'strict' allows none",
        "  m1: ValueError: odd: 1",
        "  m3: ValueError: odd: 3",
        "  m5: ValueError: odd: 5",
        "  ... and 3 more",
    ]
    assert 'raise ValueError(f"odd: {index}")' in lines[-1]
    assert len(lines) == 7


@pytest.mark.workers
def test_a_run_that_takes_too_long_is_cancelled(shell: Shell, graflow_settings: Settings) -> None:
    shell.write("slow.py", SLOW)
    answer = shell("run", "slow", "--backend", "celery", "--timeout", "1", "--param", "seconds=3")
    assert answer.code == 1
    assert "did not end within 1 s" in answer.complaint[0]
    assert Run.get(run_id_in(answer.out), graflow_settings).status is RunStatus.CANCELLED


@pytest.mark.workers
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_cancels_the_run(
    shell: Shell, graflow_settings: Settings, number: signal.Signals, code: int
) -> None:
    shell.write("slow.py", SLOW)
    with shell.start("run", "slow", "--backend", "celery", "--param", "seconds=4") as command:
        command.says("slow started")
        command.interrupt(number)
        answer = command.wait(10)
    assert answer.code == code
    assert answer.err.splitlines() == ["interrupted: The workflow was stopped: nothing of it starts any more."]
    assert Run.get(run_id_in(answer.out), graflow_settings).status is RunStatus.CANCELLED


def test_an_interrupt_waits_for_threads_and_a_second_one_does_not(lonely_shell: Shell) -> None:
    lonely_shell.write("slow.py", SLOW)
    with lonely_shell.start("run", "slow") as command:
        command.says("slow started")
        command.interrupt()
        command.says("Ctrl-C again leaves at once")
        command.interrupt()
        assert command.wait(5).code == 130
    with lonely_shell.start("run", "slow", "--param", "seconds=1.5") as command:
        command.says("slow started")
        command.interrupt()
        answer = command.wait(10)
    assert answer.code == 130
    assert "after started" not in answer.out


@pytest.mark.workers
@pytest.mark.parametrize("moment", ["at once", "while starting", "slow started"])
def test_an_interrupt_leaves_no_process_of_its_own_cluster(lonely_shell: Shell, moment: str) -> None:
    lonely_shell.write("slow.py", SLOW)
    with lonely_shell.start("run", "slow", "--backend", "embedded") as command:
        if moment == "while starting":
            wait_until(lambda: len(command.left_running()) > 2, timeout=20, description="the first process to start")
        elif moment != "at once":
            command.says(moment)
        command.interrupt()
        answer = command.wait(20)
        assert answer.code in ((130, -signal.SIGINT) if moment == "at once" else (130,))
        wait_until(lambda: not command.left_running(), timeout=5, description="the cluster to be gone")


def test_on_a_terminal_no_line_is_wider_than_it(lonely_shell: Shell) -> None:
    lonely_shell.write("failing.py", FAILING.replace("BadRow(f", "BadRow('long ' * 40 + f"))
    text = on_terminal(lonely_shell, "run", "failing")
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    lines = [line for part in plain.split("\n") for line in part.split("\r")]
    assert max(len(line) for line in lines) <= 80
    assert any(line.startswith("  ✗  clean  attempt 2  BadRow: long long") for line in lines)
    assert any(line.startswith("failed  failing") for line in lines)


@pytest.mark.workers
def test_a_terminal_shows_members_rates_errors_and_the_path(shell: Shell) -> None:
    shell.write("scores.py", SCORES)
    written = on_terminal(shell, "run", "scores", "--backend", "celery")
    run_id = run_id_in(plain(written))
    lines = [line for part in plain(written).split("\n") for line in part.split("\r")]
    assert max(len(line) for line in lines) <= 80
    assert any(re.match(r"  \S  score .*\d+/40, 1 failed, .*\d running", line) for line in lines)
    assert any(re.search(r"\d/40, 1 failed, .*\d/s", line) for line in lines)
    assert "  ✗ score[5]: ValueError: no score for 5" in [line.rstrip() for line in lines]
    screen, _, summary = plain(written).rpartition("succeeded  scores  run ")
    assert [line.split()[:2] for line in screen.splitlines()[-3:]] == [["✓", "items"], ["✓", "score"], ["✓", "last"]]
    assert re.search(r"^  path +items \S+ m?s > score\[\d+\] \S+ m?s > last ", summary, re.MULTILINE)
    assert re.search(r"^  waiting +\S+ m?s for workers, \S+ m?s at barriers, of ", summary, re.MULTILINE)

    said = json.loads(shell("watch", run_id, "--json").out.splitlines()[-1])
    assert [step["node"].partition("[")[0] for step in said["critical_path"]] == ["items", "score", "score", "last"]
    assert set(said["time"]) >= {"worked", "queued", "barriers", "idle_in_all"}
    assert sum(said["tasks"].values()) == 42


def plain(text: str) -> str:
    """What a terminal was sent, without colours and movements of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def on_terminal(shell: Shell, *arguments: str) -> str:
    """What a command writes to a terminal of 80 columns and 24 lines."""
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    env = {**shell.env, "TERM": "xterm-256color"}
    env.pop("COLUMNS", None)
    home: Path = shell.home
    with subprocess.Popen([PROGRAM, *arguments], stdin=terminal, stdout=terminal, stderr=terminal, cwd=home, env=env):
        os.close(terminal)
        written = b""
        while True:
            try:
                data = os.read(screen, 65536)
            except OSError:  # Linux: every end of the terminal is closed
                break
            if not data:
                break
            written += data
    os.close(screen)
    return written.decode()
