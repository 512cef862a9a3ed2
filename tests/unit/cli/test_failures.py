"""What went wrong, in a few lines."""

from __future__ import annotations

import pytest
import redis

from graflow_celery.cli.failures import report, run_failure, traceback_text, user_frames
from graflow_celery.core.expr import ParallelGroup
from graflow_celery.core.task import Task
from graflow_celery.errors import (
    CodeNotFoundError,
    NoWorkerError,
    ParallelGroupError,
    RemoteError,
    RemoteTraceback,
    RunFailedError,
    UnavailableError,
)
from graflow_celery.terminal.progress import ProgressModel
from graflow_celery.workflows import workflow

REMOTE = """\
Traceback (most recent call last):
  File "/srv/jobs/lib.py", line 3, in first
    raise KeyError("k")
KeyError: 'k'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/srv/jobs/etl.py", line 14, in clean
    return parse(fetch)
           ^^^^^^^^^^^^
  File "/srv/jobs/rows.py", line 40, in parse
    return frame(text)
  File "/usr/lib/python3.11/site-packages/pandas/io.py", line 99, in frame
    raise ValueError("no columns")
ValueError: no columns
"""


def failed_model(*nodes: tuple[str, str, int]) -> ProgressModel:
    """A model in which tasks have failed: their ids, workers and attempts."""
    with workflow("etl") as wf:
        Task("clean") >> ParallelGroup([Task(f"m{index}") for index in range(9)], name="members")
    model = ProgressModel(wf.plan())
    for node, worker, attempt in nodes:
        model.feed({"event": "node_failed", "node": node, "worker": worker, "attempt": attempt, "at": 1.0})
    return model


def nothing(_: str) -> None:
    return None


def raised(error: BaseException, text: str = REMOTE) -> BaseException:
    error.__cause__ = RemoteTraceback(text)
    return error


def test_the_frames_are_the_users_of_the_last_exception() -> None:
    assert [str(frame) for frame in user_frames(REMOTE)] == [
        "/srv/jobs/etl.py:14 in clean:  return parse(fetch)",
        "/srv/jobs/rows.py:40 in parse:  return frame(text)",
    ]


def test_without_frames_of_the_user_the_last_one_is_told() -> None:
    only = REMOTE.replace("/srv/jobs/", "/usr/lib/python3.11/")
    assert [frame.name for frame in user_frames(only)] == ["frame"]
    assert user_frames("no traceback at all") == []


def test_a_tasks_own_exception() -> None:
    lines = list(run_failure(raised(ValueError("no columns")), failed_model(("clean", "w1@host", 2)), nothing))
    assert lines == [
        "ValueError: no columns",
        "  in task 'clean' on w1@host, attempt 2",
        "    /srv/jobs/etl.py:14 in clean:  return parse(fetch)",
        "    /srv/jobs/rows.py:40 in parse:  return frame(text)",
    ]


def test_an_exception_of_a_type_that_is_not_here() -> None:
    error = raised(RemoteError("jobs.rows.BadRow", "no columns\nat all"))
    lines = list(run_failure(error, failed_model(("clean", "w1@host", 1)), nothing))
    assert lines[:2] == ["BadRow: no columns", "  in task 'clean' on w1@host"]
    assert len(lines) == 4


def test_an_error_of_ours_about_a_task_names_it_once_and_needs_no_frames() -> None:
    error = raised(CodeNotFoundError("clean", "module 'x' cannot be imported."))
    assert list(run_failure(error, failed_model(("clean", "local", 1)), nothing)) == [
        "Task 'clean': module 'x' cannot be imported."
    ]


def test_a_group_tells_its_first_members_and_the_frames_of_the_first() -> None:
    failed: list[tuple[str, str | None]] = [(f"m{index}", f"ValueError: {index}\nmore") for index in range(5)]
    error = ParallelGroupError("5 of 9 members failed", "members", failed, ["m5"])
    origin = raised(ValueError("3"))
    model = failed_model(("m3", "w1", 1), ("m0", "w2", 1))
    lines = list(run_failure(error, model, {"m3": origin}.get))
    assert lines == [
        "Parallel group 'members': 5 of 9 members failed",
        "  m0: ValueError: 0",
        "  m1: ValueError: 1",
        "  m2: ValueError: 2",
        "  ... and 2 more",
        "  in task 'm3' on w1",
        "    /srv/jobs/etl.py:14 in clean:  return parse(fetch)",
        "    /srv/jobs/rows.py:40 in parse:  return frame(text)",
    ]


def test_a_run_that_failed_for_another_reason() -> None:
    assert list(run_failure(RunFailedError("r1", "its graph is lost"), failed_model(), nothing)) == [
        "Run r1: its graph is lost"
    ]


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (NoWorkerError(["gpu"]), 3, "error: No live worker consumes queue 'gpu'."),
        (RunFailedError("r1", "lost"), 1, "error: Run r1: lost"),
        (redis.ConnectionError("Connection closed by server."), 3, "error: The server stopped answering"),
        (ZeroDivisionError("division by zero"), 1, "error: Unexpected ZeroDivisionError: division by zero"),
    ],
)
def test_what_ends_a_command(error: Exception, code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(error, full=False) == code
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(said)
    assert len(told.err.splitlines()) <= 3


def test_the_last_words_of_a_process_are_told_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    words = "\n".join(f"    line {number}" for number in range(12))
    assert report(UnavailableError(f"Worker w1 ended with code 1.\n    Its log ends:\n{words}"), full=False) == 3
    assert "line 11" in capsys.readouterr().err


def test_the_whole_traceback_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(raised(ZeroDivisionError("x")), full=True) == 1
    assert "pandas/io.py" in capsys.readouterr().err


def test_a_local_exception_has_its_traceback_too() -> None:
    def fail() -> None:
        raise ValueError("here")

    with pytest.raises(ValueError, match="here") as caught:
        fail()
    assert [frame.name for frame in user_frames(traceback_text(caught.value))][-1:] == ["fail"]
