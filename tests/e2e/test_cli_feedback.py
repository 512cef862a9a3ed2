"""``graflow-celery feedback``, and what ``run`` and ``watch`` do where a task asks a person."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import termios

import pytest

from graflow_celery import FeedbackRequest, Run, RunStatus, Settings
from graflow_celery.testing import wait_until
from tests.e2e.shell import PROGRAM, Shell
from tests.e2e.workflows import ASKING

workers = pytest.mark.workers


def submitted(shell: Shell, settings: Settings, *more: str) -> Run:
    shell.write("asking.py", ASKING)
    answer = shell("submit", "asking", *more)
    assert (answer.code, answer.err) == (0, "")
    return Run.get(answer.out.strip(), settings)


def next_request(run: Run) -> FeedbackRequest:
    """What the run asks now, waited for."""
    wait_until(lambda: any(asked.is_open for asked in run.feedback()), description="the task to ask")
    return next(asked for asked in run.feedback() if asked.is_open)


@workers
def test_list_and_answer_until_the_run_is_done(shell: Shell, graflow_settings: Settings) -> None:
    run = submitted(shell, graflow_settings)
    asked = next_request(run)
    listed = shell("feedback", "list", run.id)
    assert listed.code == 0
    assert re.search(rf"{asked.feedback_id} +review +pending +approval +publish the report\?", listed.out)
    assert asked.feedback_id in shell("feedback", "list").out

    answer = shell("feedback", "answer", asked.feedback_id, "yes", "--reason", "it is good", "--by", "Eve")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == f"answered review of run {run.id}: yes\n"
    assert shell("feedback", "answer", next_request(run).feedback_id, "very loud").code == 0
    assert shell("feedback", "answer", next_request(run).feedback_id, "The year").code == 0
    watched = shell("watch", run.id)
    assert watched.code == 0
    assert "published very loud: The year" in watched.out

    told = json.loads(shell("feedback", "list", run.id, "--json").out)
    assert [(one["status"], one["response"]["reason"], one["response"]["responded_by"]) for one in told] == [
        ("completed", "it is good", "Eve"),
        ("completed", None, None),
        ("completed", None, None),
    ]
    assert "publish the report? -> yes (it is good), Eve" in shell("feedback", "list", run.id).out
    assert run.id not in shell("feedback", "list").out


@workers
def test_answers_that_are_refused(shell: Shell, graflow_settings: Settings) -> None:
    run = submitted(shell, graflow_settings)
    asked = next_request(run)
    answer = shell("feedback", "answer", asked.feedback_id, "perhaps")
    assert answer.code == 2
    assert "answer yes or no, not 'perhaps'" in answer.complaint[0]
    answer = shell("feedback", "answer", asked.feedback_id, "yes", "please")
    assert answer.code == 2
    assert "asks for one approval" in answer.complaint[0]
    for unknown in (f"{run.id}-1", "nothing", "no-such-run-1"):
        answer = shell("feedback", "answer", unknown, "yes")
        assert answer.code == 2
        assert answer.complaint[0].startswith(f"error: No request for feedback '{unknown}'")
    assert shell("feedback", "answer", asked.feedback_id, "no").code == 0
    answer = shell("feedback", "answer", asked.feedback_id, "yes")
    assert answer.code == 2
    assert "it was answered already" in answer.complaint[0]
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert run.result() == "published nothing"


def test_without_a_server(lonely_shell: Shell) -> None:
    assert lonely_shell("feedback", "list").code == 3
    assert lonely_shell("feedback", "answer", "run-1", "yes").code == 3


@workers
def test_a_late_answer_to_a_run_that_nobody_waits_for_any_more(shell: Shell, graflow_settings: Settings) -> None:
    shell.write("asking.py", ASKING)
    answer = shell("run", "asking", "--backend", "celery", "--param", "seconds=0.3")
    assert answer.code == 3
    assert "review waits for a person: request" in answer.out
    assert "waiting  asking  run" in answer.out
    assert "waiting: review asks: publish the report?" in answer.err
    found = re.search(r"Answer: graflow-celery feedback answer (\S+) yes", answer.err)
    assert found is not None
    request_id = found[1]
    run = Run.get(request_id.rpartition("-")[0], graflow_settings)
    assert run.status is RunStatus.WAITING
    assert re.search(rf"{request_id} +review +late", shell("feedback", "list").out)
    with shell.start("watch", run.id) as watching:
        watching.says("still waits for a person")
        assert shell("feedback", "answer", request_id, "no").code == 0
        assert watching.wait(30).code == 0
    assert run.result() == "published nothing"


def test_a_run_here_without_a_terminal_says_that_nobody_can_be_asked(lonely_shell: Shell) -> None:
    lonely_shell.write("asking.py", ASKING)
    answer = lonely_shell("run", "asking", "--param", "seconds=0.3")
    assert answer.code == 3
    assert "waiting: review asks: publish the report?" in answer.err
    assert "run it in a terminal, or with --backend celery" in answer.err
    summary = json.loads(lonely_shell("run", "asking", "--param", "seconds=0.3", "--json").out.splitlines()[-1])
    assert summary["status"] == "waiting"


@pytest.mark.parametrize("seconds", ["180", "0.2"])
def test_on_a_terminal_the_person_is_asked(lonely_shell: Shell, seconds: str) -> None:
    """Also where the person is late: as long as the question is on the screen it can be answered."""
    lonely_shell.write("asking.py", ASKING)
    screen = Terminal(lonely_shell, "run", "asking", "--param", f"seconds={seconds}")
    screen.says("review: publish the report? [y/N]:")
    if float(seconds) < 1:
        screen.stays(float(seconds) + 0.5)
    screen.types("y\n")
    screen.says("review: in which tone? (plain, very loud):")
    screen.types("silent\n")
    screen.says("Error: 'silent' is not one of")
    screen.types("plain\n")
    screen.says("review: title?:")
    screen.types("The year\n")
    screen.says("published plain: The year")
    assert screen.ends() == 0


@workers
def test_on_a_terminal_the_person_is_asked_for_a_run_on_workers(shell: Shell) -> None:
    shell.write("asking.py", ASKING)
    screen = Terminal(shell, "run", "asking", "--backend", "celery")
    screen.says("review: publish the report? [y/N]:")
    screen.types("n\n")
    screen.says("published nothing")
    assert screen.ends() == 0


class Terminal:
    """A command in a terminal of 80 columns, and the person who reads and types there."""

    def __init__(self, shell: Shell, *arguments: str) -> None:
        self._screen, terminal = pty.openpty()
        termios.tcsetwinsize(terminal, (24, 80))
        os.set_blocking(self._screen, False)
        env = {**shell.env, "TERM": "xterm-256color"}
        env.pop("COLUMNS", None)
        self._process = subprocess.Popen(
            [PROGRAM, *arguments], stdin=terminal, stdout=terminal, stderr=terminal, cwd=shell.home, env=env
        )
        os.close(terminal)
        self._text = ""
        self._read = 0

    def says(self, text: str) -> None:
        """Waits until the command has written ``text`` after what was waited for before."""
        try:
            wait_until(lambda: self._find(text), timeout=30, description=f"'{text}' on the screen")
        except TimeoutError:
            self._process.kill()
            raise AssertionError(self._text) from None

    def stays(self, seconds: float) -> None:
        """Types nothing for a while: the command goes on meanwhile."""
        with pytest.raises(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def types(self, text: str) -> None:
        os.write(self._screen, text.encode())

    def ends(self) -> int:
        code = self._process.wait(30)
        os.close(self._screen)
        return code

    def _find(self, text: str) -> bool:
        with contextlib.suppress(OSError):  # nothing new, or every end of the terminal is closed
            self._text += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", os.read(self._screen, 65536).decode())
        at = self._text.find(text, self._read)
        self._read = at + len(text) if at >= 0 else self._read
        return at >= 0
