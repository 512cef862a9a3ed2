"""``graflow-celery feedback list`` and ``answer``: what the tasks of runs ask of people, and the answers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import click
from rich.text import Text

from graflow_celery.cli import options, render
from graflow_celery.distributed import active_runs
from graflow_celery.engine.feedback import FeedbackRequest, FeedbackType, run_of
from graflow_celery.errors import FeedbackNotFoundError, RunNotFoundError
from graflow_celery.runs import Run
from graflow_celery.terminal.wording import first_line


@click.group()
def feedback() -> None:
    """Show what the tasks of runs ask of people, and answer it."""


@feedback.command("list")
@click.argument("run_id", metavar="[RUN]", required=False)
@options.as_json
def list_requests(run_id: str | None, as_json: bool) -> int:
    """List what waits for an answer in all runs; of one RUN also what was answered."""
    render.show_warnings()
    if run_id is not None:
        asked = Run.get(run_id).feedback()
    else:
        asked = [request for run in active_runs() for request in run.feedback() if request.is_open]
    if as_json:
        render.say_json([request.to_dict() for request in asked])
    elif not asked:
        render.say("Nothing waits for an answer." if run_id is None else f"Run {run_id} asked nothing.")
    else:
        render.table(("request", "task", "status", "asks for", "question and answer"), _rows(asked))
    return 0


@feedback.command("answer")
@click.argument("request_id", metavar="REQUEST")
@click.argument("values", metavar="VALUE...", nargs=-1, required=True)
@click.option("--reason", metavar="TEXT", help="Why; kept with the answer.")
@click.option("--by", metavar="NAME", help="Who says so; kept with the answer.")
def answer(request_id: str, values: tuple[str, ...], reason: str | None, by: str | None) -> int:
    """Answer what a task asks: yes or no, a text, or an option; several options one after the other.

    The task's run goes on. So it does when the answer comes late and the run is `waiting`.
    """
    render.show_warnings()
    try:
        run = Run.get(run_of(request_id))
    except RunNotFoundError:
        raise FeedbackNotFoundError(request_id) from None
    request = FeedbackRequest.of(run.asked(request_id))
    kept = run.answer(request_id, _value(request, values), reason=reason, by=by)
    render.say(f"answered {request.task_id} of run {run.id}: {said(request.feedback_type, kept.value)}")
    return 0


def said(kind: FeedbackType, value: Any) -> str:
    """An answer as a person would say it."""
    if kind is FeedbackType.APPROVAL:
        return "yes" if value else "no"
    if kind is FeedbackType.MULTI_SELECTION:
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _value(request: FeedbackRequest, values: Sequence[str]) -> Any:
    if request.feedback_type is FeedbackType.MULTI_SELECTION:
        return list(values)
    if len(values) > 1:
        kind = request.feedback_type.value
        raise click.UsageError(
            f"Request {request.feedback_id} asks for one {kind}. Put it in quotes: '{' '.join(values)}'"
        )
    if request.feedback_type is FeedbackType.CUSTOM:
        try:
            return json.loads(values[0])
        except ValueError:
            return values[0]
    return values[0]


def _rows(asked: Sequence[FeedbackRequest]) -> Iterator[list[str | Text]]:
    for request in asked:
        kind = request.feedback_type.value.replace("_", " ")
        options_told = f" ({' | '.join(request.options)})" if request.options else ""
        text = f"{first_line(request.prompt)}{options_told}"
        if request.response is not None:
            text += f" -> {said(request.feedback_type, request.response.value)}"
            text += f" ({request.response.reason})" if request.response.reason else ""
            text += f", {request.response.responded_by}" if request.response.responded_by else ""
        status = "late" if request.status == "timeout" else request.status
        yield [request.feedback_id, request.task_id, Text(status, style=render.style_of(status)), kind, text]
