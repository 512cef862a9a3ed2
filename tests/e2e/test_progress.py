"""What shows a run to the program that waits for it."""

from __future__ import annotations

import asyncio
import re
import threading

import pytest

from graflow_celery import Settings, TaskExecutionContext, task, workflow
from graflow_celery.celery_backend.showing import earlier
from graflow_celery.distributed import finish
from graflow_celery.runs import client_runtime
from graflow_celery.testing import wait_until
from graflow_celery.workflows import WorkflowContext

pytestmark = pytest.mark.workers


@task
def numbers() -> list[int]:
    return [1, 2, 3]


@task
def double(item: int) -> int:
    threading.Event().wait(0.1)
    return 2 * item


@task
def breaks() -> None:
    raise ValueError("broken")


@task(inject_context=True)
def asks(context: TaskExecutionContext) -> str:
    return "yes" if context.request_approval("go on?", timeout=0.2) else "no"


def quick() -> WorkflowContext:
    with workflow("quick") as wf:
        numbers >> double.map()
    return wf


@pytest.mark.parametrize("backend", ["local", "celery"])
def test_execute_async_shows_what_execute_shows(
    backend: str, graflow_settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = {"settings": graflow_settings} if backend == "celery" else {}

    async def main() -> None:
        assert await quick().execute_async(backend=backend, progress=True, timeout=30, **chosen) == [2, 4, 6]  # type: ignore[arg-type]
        out = capsys.readouterr().out
        assert "double: 3 members" in out
        assert re.search(r"^succeeded  quick  ", out, re.MULTILINE)
        with workflow("broken") as wf:
            numbers >> breaks
        with pytest.raises(ValueError, match="broken"):
            await wf.execute_async(backend=backend, progress=True, timeout=30, **chosen)  # type: ignore[arg-type]
        assert re.search(r"^failed  broken  ", capsys.readouterr().out, re.MULTILINE)
        await quick().execute_async(backend=backend, progress=False, timeout=30, **chosen)  # type: ignore[arg-type]
        assert capsys.readouterr().out == ""

    asyncio.run(main())


@pytest.mark.parametrize("backend", ["local", "celery"])
def test_execute_shows_how_it_goes(
    backend: str, graflow_settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = {"settings": graflow_settings} if backend == "celery" else {}
    assert quick().execute(backend=backend, progress=True, timeout=30, **chosen) == [2, 4, 6]  # type: ignore[arg-type]
    out = capsys.readouterr().out
    assert "double: 3 members" in out
    assert re.search(r"^succeeded  quick  ", out, re.MULTILINE)
    assert re.search(r"^  path +numbers \S+ m?s > double\[\d\] ", out, re.MULTILINE)
    with workflow("broken") as wf:
        numbers >> breaks
    with pytest.raises(ValueError, match="broken"):
        wf.execute(backend=backend, progress=True, timeout=30, **chosen)  # type: ignore[arg-type]
    assert "failed  broken" in capsys.readouterr().out
    assert quick().execute(backend=backend, progress=False, timeout=30, **chosen) == [2, 4, 6]  # type: ignore[arg-type]
    assert capsys.readouterr().out == ""


def test_an_earlier_run_says_how_long_nodes_take(graflow_settings: Settings) -> None:
    with workflow("before and after") as wf:
        numbers >> double.map()
    first = wf.submit(settings=graflow_settings)
    runtime = client_runtime(graflow_settings)
    assert earlier(runtime, first._run, first.plan) == {}
    first.wait(timeout=30)
    second = wf.submit(settings=graflow_settings)
    took = earlier(runtime, second._run, second.plan)
    assert set(took) == {"numbers", "double"}
    assert 0.1 <= took["double"] < 10  # the group's own time, from its opening to its barrier
    second.wait(timeout=30)


def test_who_waits_to_the_end_waits_for_a_late_person_too(graflow_settings: Settings) -> None:
    with workflow("late") as wf:
        asks >> numbers
    run = wf.submit(settings=graflow_settings)

    def answer() -> None:
        wait_until(lambda: run.status == "waiting", description="the run to wait for a person")
        run.answer(run.feedback()[0].feedback_id, True)

    answering = threading.Thread(target=answer)
    answering.start()
    assert finish(run, timeout=30, to_end=True) == [1, 2, 3]
    answering.join()
