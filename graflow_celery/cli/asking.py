"""What a task asks while its run is shown: at the prompt where a person sits, else the command that answers it."""

from __future__ import annotations

import json
import shlex
import sys
import threading
from collections.abc import Callable
from typing import Any

import click

from graflow_celery.cli import render
from graflow_celery.engine.feedback import FeedbackRequest, FeedbackType
from graflow_celery.errors import FeedbackAnswerError
from graflow_celery.terminal.live import Display

_EXAMPLES = {FeedbackType.APPROVAL: "yes", FeedbackType.TEXT: "'some text'", FeedbackType.CUSTOM: "'{}'"}


def somebody_is_there(*, as_json: bool) -> bool:
    """Whether a person can be asked: standard input and output are a terminal, and no program reads the output."""
    return not as_json and sys.stdin.isatty() and render.is_terminal()


class Prompt:
    """Asks the person at the terminal, one question at a time. Call it from any thread.

    An end of the input leaves the question open.

    Attributes:
        give: takes an answer: ``give(request id, value)``.
    """

    def __init__(self, shown: Display) -> None:
        self.give: Callable[[str, Any], object] = lambda request_id, value: None
        self._shown = shown
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        self._open = 0

    def __call__(self, request: FeedbackRequest) -> None:
        with self._changed:
            self._open += 1
        try:
            with self._turn, self._shown.paused():
                value = ask(request)
            self.give(request.feedback_id, value)
        except (click.Abort, EOFError):
            return
        except FeedbackAnswerError as error:
            render.complain(str(error).splitlines(), kind="warning")
        finally:
            with self._changed:
                self._open -= 1
                self._changed.notify_all()

    def wait(self) -> bool:
        """Blocks while there is a question; False if there was none."""
        with self._changed:
            asked = self._open > 0
            self._changed.wait_for(lambda: not self._open)
            return asked


class Notice:
    """Tells how a request can be answered, on stderr."""

    def __init__(self, run_id: str, url: str = "") -> None:
        self._run_id = run_id
        self._url = url

    def __call__(self, request: FeedbackRequest) -> None:
        lines = [f"{request.task_id} asks: {request.prompt}"]
        if self._run_id:
            lines.append(f"Answer: {command(request, self._url)}")
        else:
            lines.append(
                "Nobody can be asked here: run it in a terminal, or with --backend celery and answer it later."
            )
        render.complain(lines, kind="waiting")


def command(request: FeedbackRequest, url: str = "") -> str:
    """The command that answers a request; ``url``: the server that has the run, if the environment names another."""
    example = shlex.quote(request.options[0]) if request.options else _EXAMPLES.get(request.feedback_type, "...")
    before = f"GRAFLOW_CELERY_REDIS_URL={url} " if url else ""
    return f"{before}graflow-celery feedback answer {request.feedback_id} {example}"


def ask(request: FeedbackRequest) -> Any:
    """Asks at the prompt until the answer fits. Raises click.Abort at the end of the input."""
    question = f"{request.task_id}: {request.prompt}"
    options = list(request.options or ())
    match request.feedback_type:
        case FeedbackType.APPROVAL:
            return click.confirm(question)
        case FeedbackType.TEXT:
            return click.prompt(question, type=str)
        case FeedbackType.SELECTION:
            return click.prompt(question, type=click.Choice(options))
        case FeedbackType.MULTI_SELECTION:
            for number, option in enumerate(options, 1):
                click.echo(f"  {number}  {option}")
            return click.prompt(
                f"{question} Numbers, with spaces between", value_proc=lambda text: _several(text, options)
            )
        case FeedbackType.CUSTOM:
            return click.prompt(f"{question} JSON", value_proc=_json)


def _several(text: str, options: list[str]) -> list[str]:
    numbers = text.replace(",", " ").split()
    wrong = [number for number in numbers if not number.isdigit() or not 1 <= int(number) <= len(options)]
    if wrong:
        raise click.UsageError(f"{', '.join(wrong)}: choose from 1 to {len(options)}.")
    return [options[int(number) - 1] for number in numbers]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise click.UsageError(f"that is no JSON: {error}") from None
