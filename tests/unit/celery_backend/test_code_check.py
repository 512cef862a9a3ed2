"""What a worker says of code that differs, to whom and how often."""

from __future__ import annotations

import logging

import pytest

from graflow_celery.celery_backend.code_check import CODE_DIFFERS, CodeCheck, Mode
from graflow_celery.errors import CodeMismatchError
from graflow_celery.ports import RunRef

REASON = "'app.clean' has other code on worker w1@h than where the workflow was submitted. Restart that worker"


class Told:
    """What runs were told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, str]]] = []

    def __call__(self, run: RunRef, event: str, /, **fields: str) -> None:
        self.events.append((run.id, event, fields))


def checking(mode: Mode) -> tuple[CodeCheck, Told]:
    told = Told()
    return CodeCheck(mode, "worker h:17", told), told


def test_each_run_is_told_once_and_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    check, told = checking("warn")
    assert not check.found_some
    with caplog.at_level(logging.WARNING):
        for task in ("one", "two"):
            check.differs("blob", task, "app.clean")
    for run in ("r1", "r2"):
        for node in ("one", "two"):
            check.tell(RunRef(run, "h"), "blob", node, "w1@h")
    check.tell(RunRef("r1", "h"), "another blob", "three", "w1@h")
    assert [
        message.startswith("task 'one': 'app.clean' has other code on worker h:17") for message in caplog.messages
    ] == [True]
    assert [(run, event, fields["node"], fields["worker"]) for run, event, fields in told.events] == [
        ("r1", CODE_DIFFERS, "one", "w1@h"),
        ("r2", CODE_DIFFERS, "one", "w1@h"),
    ]
    assert all(fields["reason"].startswith(REASON) for _, _, fields in told.events)


def test_an_error_names_task_function_worker_and_remedy() -> None:
    check, _ = checking("error")
    with pytest.raises(CodeMismatchError, match=r"^Task 'one': 'app\.clean' has other code on worker h:17 .*Restart"):
        check.differs("blob", "one", "app.clean")
    assert not check.found_some


def test_nothing_is_said_where_it_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    check, told = checking("ignore")
    check.differs("blob", "one", "app.clean")
    check.tell(RunRef("r1", "h"), "blob", "one", "w1@h")
    assert not told.events
    assert not caplog.messages
