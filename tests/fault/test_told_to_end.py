"""A process of a pool is told to end (SIGTERM) at a bad moment: that is a loss, and no failure of the task."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from graflow_celery import RunStatus, Settings, task, workflow

pytestmark = pytest.mark.workers


class Trap:
    """Where it is decoded for the first time, the process is told to end meanwhile."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[str], str], tuple[str]]:
        return spring, (self.mark,)


def spring(mark: str) -> str:
    if not Path(mark).exists():
        Path(mark).touch()
        os.kill(os.getpid(), signal.SIGTERM)
    return "decoded"


def test_a_process_that_is_told_to_end_while_it_decodes_a_function_loses_the_attempt(
    graflow_settings: Settings, tmp_path: Path
) -> None:
    trap = Trap(str(tmp_path / "sprung"))

    @task
    def careful() -> str:
        return str(trap)

    with workflow("told to end") as wf:
        wf.add(careful)
    run = wf.submit(settings=graflow_settings)
    assert run.wait(timeout=60) is RunStatus.SUCCEEDED, run.reason
    assert run.result() == "decoded"
    assert [event["event"] for event in run.events()].count("node_failed") == 0
