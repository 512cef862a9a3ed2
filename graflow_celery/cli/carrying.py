"""Carries a workflow out, here or on workers, shows how it goes, and tells how it ended."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.text import Text

from graflow_celery import distributed, runs
from graflow_celery.cli import failures, render
from graflow_celery.cli.asking import Notice, Prompt, command, somebody_is_there
from graflow_celery.core.state import RunStatus
from graflow_celery.local import LocalRun
from graflow_celery.settings import Settings
from graflow_celery.terminal.live import display
from graflow_celery.terminal.progress import ProgressModel
from graflow_celery.terminal.summary import as_json as summary_as_json
from graflow_celery.terminal.summary import tell as tell_run
from graflow_celery.terminal.wording import counted, size
from graflow_celery.workflows import WorkflowContext

REQUESTS_TOLD = 3


@dataclass(frozen=True)
class Request:
    """A workflow and how it is to run and be shown."""

    workflow: WorkflowContext
    start: str | None = None
    channel: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    as_json: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class Ending:
    """How a run ended: with a result or an error. One in this process has no id that could be asked for later."""

    run_id: str
    model: ProgressModel
    result: Any = None
    error: BaseException | None = None
    error_of: failures.ErrorOf = lambda _: None
    run: runs.Run | None = None


def run_here(request: Request) -> Ending:
    """Runs a workflow in threads of this process.

    Raises:
        GraflowError: it could not start, or did not end in time. What a task of it raised is in the answer.
    """
    shown = display(request.workflow.plan(request.start), "", as_json=request.as_json, quiet=request.quiet)
    prompt = Prompt(shown) if somebody_is_there(as_json=request.as_json) else None
    run = LocalRun(
        request.workflow,
        start_node=request.start,
        initial_channel=request.channel,
        observer=shown.feed,
        policy=request.workflow.scheduling,
        llm=request.workflow.llm,
        feedback=prompt or Notice(""),
        tracer=request.workflow.tracer,
    )
    shown.model.plan_for = functools.partial(run.graphs.plan_for, run.run)
    if prompt is not None:
        prompt.give = run.answer
    try:
        with shown:
            result = run.execute(request.timeout)
            while prompt is not None and prompt.wait():  # the person is late, but there
                run.settle()
                result = run.result()
    except Exception as error:  # boundary: what a task raised comes out here as it is
        if not shown.model.has_ended:
            raise
        return Ending("", shown.model, error=error, error_of=run.store.errors.get)
    return Ending("", shown.model, result)


def run_on_workers(request: Request, settings: Settings | None = None) -> Ending:
    """Runs a workflow on Celery workers and waits for its end. Ctrl-C cancels the run.

    Raises:
        GraflowError: it could not start, or did not end in time; no server or no worker. What a task of it raised is in
            the answer.
    """
    run = request.workflow.submit(
        request.start, initial_channel=request.channel, settings=settings, require_workers=True
    )
    shown = run.display(as_json=request.as_json, quiet=request.quiet)
    prompt = Prompt(shown) if somebody_is_there(as_json=request.as_json) else None
    if prompt is not None:
        prompt.give = run.answer
    asked = prompt or Notice(run.id, "" if settings is None else settings.redis_url)
    try:
        with shown:
            result = distributed.finish(run, request.timeout, shown.feed, asked, to_end=prompt is not None)
    except Exception as error:  # boundary: what a task raised comes out here as it is
        if not shown.model.has_ended:
            raise
        return Ending(run.id, shown.model, error=error, error_of=error_of(run), run=run)
    return Ending(run.id, shown.model, result, run=run)


def error_of(run: runs.Run) -> failures.ErrorOf:
    """How to get the exception of a failed task of a run on workers."""

    def found(node: str) -> BaseException | None:
        try:
            run.result(node)
        except Exception as error:  # noqa: BLE001  boundary: what is asked for is the exception of a task
            return error
        return None

    return found


def tell(ending: Ending, *, as_json: bool = False, traceback: bool = False, with_result: bool = True) -> int:
    """Prints how a run ended and what it brought, or why it failed; returns the exit code."""
    if as_json:
        render.say_json(_as_json(ending))
    else:
        summary(ending, with_result)
    if ending.error is None and ending.model.status is RunStatus.WAITING:
        return _tell_waiting(ending)
    if ending.error is None:
        return 0
    failures.report_run(ending.error, ending.model, ending.error_of, traceback)
    return failures.RUN_FAILED


def _tell_waiting(ending: Ending) -> int:
    """A run that waits for a person is neither done nor failed: like a missing worker, a missing answer is outside."""
    open_requests = [request for request in ending.run.feedback() if request.is_open] if ending.run is not None else []
    lines = ["The run waits for a person."]
    lines += [f"Answer: {command(request)}" for request in open_requests[:REQUESTS_TOLD]]
    render.complain(lines, kind="waiting")
    return failures.OUTSIDE_MISSING


def summary(ending: Ending, with_result: bool) -> None:
    """What is told of every run, then its uploads and its result."""
    more: list[tuple[str, str | Text]] = []
    if ending.run is not None:
        run = ending.run
        uploads = f"{counted(run.uploaded_blobs, 'blob')}, {size(run.uploaded_bytes)}"
        more.append(("uploads", uploads if run.uploaded_blobs else "none: the workers' store has this graph"))
    if ending.error is None and with_result and ending.model.status is not RunStatus.WAITING:
        more.append(("result", render.pretty(ending.result, render.stdout().width - 12)))
    tell_run(ending.model, ending.run_id, more)


def _as_json(ending: Ending) -> dict[str, Any]:
    model = ending.model
    said: dict[str, Any] = {
        "event": "summary",
        "run": ending.run_id,
        "workflow": model.plan.name,
        "status": str(model.status),
        "seconds": round(model.seconds(time.time()), 3),
        **summary_as_json(model),
    }
    if ending.run is not None:
        said["uploads"] = {"blobs": ending.run.uploaded_blobs, "bytes": ending.run.uploaded_bytes}
    if ending.error is None:
        said["result"] = ending.result
    else:
        said["error"] = {"type": type(ending.error).__name__, "message": str(ending.error)}
    return said
