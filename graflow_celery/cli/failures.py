"""What went wrong, in a few lines and an exit code.

An error of ours says by itself what it is about and what to do. A failed task shows the exception, the task, the worker
and where in the user's code it was raised; ``--traceback`` shows everything.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from graflow_celery.cli import render
from graflow_celery.errors import GraflowError, ParallelGroupError, RemoteError, RemoteTraceback, TaskError
from graflow_celery.terminal.progress import NodeProgress, ProgressModel
from graflow_celery.terminal.wording import first_line, place, shortened

FRAMES_TOLD = 3
MEMBERS_TOLD = 3
LONGEST_MESSAGE = 16  # lines; some errors end with the last words of a process's log
RUN_FAILED: Final = 1
OUTSIDE_MISSING: Final = 3

ErrorOf = Callable[[str], BaseException | None]

_FRAME = re.compile(
    r'^  File "(?P<file>.+)", line (?P<line>\d+), in (?P<name>.+)\n(?:    (?P<code>.+)\n)?', re.MULTILINE
)
_START = "Traceback (most recent call last):\n"
_FOREIGN = ("/site-packages/", "/dist-packages/", "/lib/python3", "/graflow_celery/", "<frozen ")
_SERVERS = frozenset({"redis", "kombu", "amqp"})


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a traceback."""

    file: str
    line: int
    name: str
    code: str

    @property
    def is_users(self) -> bool:
        return not any(part in self.file for part in _FOREIGN)

    def __str__(self) -> str:
        return f"{shortened(self.file)}:{self.line} in {self.name}" + (f":  {self.code}" if self.code else "")


def report(error: BaseException, full: bool) -> int:
    """Tells of an error that ended a command and returns the command's exit code."""
    if isinstance(error, GraflowError):
        render.complain(str(error).splitlines()[:LONGEST_MESSAGE])
        _show_full(error, full)
        return error.exit_code
    if type(error).__module__.partition(".")[0] in _SERVERS:
        render.complain([f"The server stopped answering ({first_line(str(error))}).", "Look: graflow-celery doctor"])
        _show_full(error, full)
        return OUTSIDE_MISSING
    render.complain(
        [
            f"Unexpected {type(error).__name__}: {first_line(str(error))}",
            "This is a defect of graflow-celery: please report it with what --traceback shows.",
        ]
    )
    _show_full(error, full)
    return RUN_FAILED


def report_run(error: BaseException, model: ProgressModel, error_of: ErrorOf, full: bool) -> None:
    """Tells why a run failed. ``error_of`` brings the exception of a failed task."""
    lines = list(run_failure(error, model, error_of))
    render.complain(lines)
    _show_full(_origin(error, model, error_of), full)


def run_failure(error: BaseException, model: ProgressModel, error_of: ErrorOf) -> Iterator[str]:
    """The lines that say why a run failed: what, in which task, on which worker, at which line of the user's."""
    if isinstance(error, ParallelGroupError):
        yield f"Parallel group '{error.group_id}': {error.detail}"
        for member, text in error.failed_tasks[:MEMBERS_TOLD]:
            yield f"  {member}: {first_line(text or 'failed')}"
        if len(error.failed_tasks) > MEMBERS_TOLD:
            yield f"  ... and {len(error.failed_tasks) - MEMBERS_TOLD:,} more"
        failed = model.failures[0] if model.failures else None
    else:
        yield from _headline(error)
        failed = next((node for node in reversed(model.failures) if model.group_of(node) is None), None)
    origin = _origin(error, model, error_of)
    if failed is not None and (failed.worker not in ("", "local") or not isinstance(error, TaskError)):
        yield f"  {_where(failed)}"
    if not isinstance(origin, GraflowError) or isinstance(origin, RemoteError):
        for frame in user_frames(traceback_text(origin))[-FRAMES_TOLD:]:
            yield f"    {frame}"


def user_frames(text: str) -> list[Frame]:
    """The frames of the last traceback in a text that are of the user's own files; its last frame if none are."""
    frames = [
        Frame(found["file"], int(found["line"]), found["name"], found["code"] or "")
        for found in _FRAME.finditer(text.rpartition(_START)[2])
    ]
    return [frame for frame in frames if frame.is_users] or frames[-1:]


def traceback_text(error: BaseException) -> str:
    """The traceback from where the exception was raised: on the worker if it came from one."""
    if isinstance(error.__cause__, RemoteTraceback):
        return error.__cause__.text
    return "".join(traceback.format_exception(error))


def _headline(error: BaseException) -> Sequence[str]:
    if isinstance(error, RemoteError):
        return [f"{error.type_name.rpartition('.')[2]}: {first_line(error.detail)}"]
    if isinstance(error, GraflowError):
        return str(error).splitlines()[:3]
    return [f"{type(error).__name__}: {first_line(str(error))}" if str(error) else type(error).__name__]


def _where(node: NodeProgress) -> str:
    return f"in task '{node.id}'{place(node.worker)}" + (f", attempt {node.attempt}" if node.attempt > 1 else "")


def _origin(error: BaseException, model: ProgressModel, error_of: ErrorOf) -> BaseException:
    """The exception to show frames of: of a failed group that of the member that failed first."""
    if isinstance(error, ParallelGroupError) and model.failures:
        return error_of(model.failures[0].id) or error
    return error


def _show_full(error: BaseException, full: bool) -> None:
    if full:
        render.complain(traceback_text(error).rstrip().splitlines(), kind="traceback")
