"""`execute` runs a workflow on the backend of the test's turn."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from graflow_celery import Settings, WorkflowContext


class Execute(Protocol):
    """``WorkflowContext.execute`` with the backend chosen; ``after`` is called once the wait may have ended."""

    def __call__(self, wf: WorkflowContext, *, after: Callable[[], object] | None = None, **options: Any) -> Any: ...


@pytest.fixture(params=["local", pytest.param("celery", marks=pytest.mark.workers)])
def execute(request: pytest.FixtureRequest) -> Execute:
    settings: Settings | None = None
    if request.param == "celery":
        settings = request.getfixturevalue("graflow_settings")

    def run(wf: WorkflowContext, *, after: Callable[[], object] | None = None, **options: Any) -> Any:
        options.setdefault("timeout", 60)
        timer = threading.Timer(options["timeout"] + 0.5, after) if after else None
        if timer:
            timer.start()
        try:
            return wf.execute(backend=request.param, settings=settings, **options)
        finally:
            if timer:
                timer.cancel()
                if after:
                    after()

    return run
