"""What a line of a log says of the node whose code logged it. The standard library alone.

Local runs and workers alike note which attempt runs; a handler with `OriginFilter` or `JsonFormatter` tells it. On
workers every record has the attributes ``graflow_run``, ``graflow_workflow``, ``graflow_node``, ``graflow_attempt``
(empty, and 0, outside of nodes) and ``graflow``: all of them as text for the beginning of a line, or nothing. Formats
may use them like any others. What a thread logs that the code started itself has them if it was started in the
context: ``contextvars.copy_context().run``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

#: How workers of an app that has no format of its own write their lines; Celery's own, with the node.
LINE = "[%(asctime)s: %(levelname)s/%(processName)s] %(graflow)s%(message)s"
TASK_LINE = "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(graflow)s%(message)s"
#: Characters that are kept of a message, of a traceback (its end), and of one value that was given by ``extra``.
MESSAGE, TRACEBACK, VALUE = 8192, 16384, 1024
#: How many values of ``extra`` are kept.
VALUES = 32


@dataclass(frozen=True, slots=True)
class Origin:
    """The attempt that runs. ``node`` is its key, such as ``score[17]``."""

    run: str
    workflow: str
    node: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.workflow}/{self.node} #{self.attempt} run {self.run}: "


_origin: ContextVar[Origin | None] = ContextVar("graflow_origin", default=None)


def origin() -> Origin | None:
    """The attempt whose code runs here and now."""
    return _origin.get()


class within:  # noqa: N801  it is called like a function; a generator would take thrice its time, for each node
    """What is logged in the block, in this thread or task and those that inherit its context, is the attempt's."""

    __slots__ = ("_attempt", "_token")

    def __init__(self, attempt: Origin) -> None:
        self._attempt = attempt

    def __enter__(self) -> None:
        self._token = _origin.set(self._attempt)

    def __exit__(self, *_: object) -> None:
        _origin.reset(self._token)


def mark(record: logging.LogRecord) -> None:
    """Gives a record its attributes."""
    here = _origin.get()
    record.graflow = "" if here is None else str(here)
    record.graflow_run = "" if here is None else here.run
    record.graflow_workflow = "" if here is None else here.workflow
    record.graflow_node = "" if here is None else here.node
    record.graflow_attempt = 0 if here is None else here.attempt


class OriginFilter(logging.Filter):
    """For handlers whose format uses the attributes: also records that were made otherwise have them then."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not hasattr(record, "graflow"):
            mark(record)
        return True


def install_factory() -> None:
    """Has every record that is made in this process from now on have the attributes; once is enough."""
    before = logging.getLogRecordFactory()
    if getattr(before, "marks", False):
        return

    def made(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        mark(record)
        return record

    made.marks = True  # type: ignore[attr-defined]  # to know it again
    logging.setLogRecordFactory(made)


class JsonFormatter(logging.Formatter):
    """A line of JSON for each record: time, level, logger, message, process; in a node also run, workflow, node and
    attempt; ``extra`` and ``error`` (a traceback) where there are some."""

    def format(self, record: logging.LogRecord) -> str:
        OriginFilter().filter(record)
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        facts: dict[str, Any] = {"time": when, **entry_of(record), "process": record.processName}
        if getattr(record, "graflow_run", ""):
            names = ("run", "workflow", "node", "attempt")
            facts |= {name: getattr(record, f"graflow_{name}") for name in names}
        return json.dumps(facts, ensure_ascii=False, default=repr)


def entry_of(record: logging.LogRecord) -> dict[str, Any]:
    """A record's level, logger, message, ``extra`` and traceback, cut to what a line may have.

    Raises what the message's arguments raise when they are made text.
    """
    facts: dict[str, Any] = {
        "level": record.levelname,
        "logger": record.name,
        "message": _cut(record.getMessage(), MESSAGE),
    }
    given = extra_of(record)
    if given:
        facts["extra"] = given
    if record.exc_info and record.exc_info[0] is not None:
        facts["error"] = logging.Formatter().formatException(record.exc_info)[-TRACEBACK:]
    return facts


def extra_of(record: logging.LogRecord) -> Mapping[str, Any]:
    """What was given with ``extra``: numbers as they are, everything else as text."""
    names = [name for name in vars(record) if name not in _OWN and not name.startswith("graflow")]
    return {name: _plain(vars(record)[name]) for name in names[:VALUES]}


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float) else _cut(str(value), VALUE)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text) - most:,} characters more)"


#: What records have without ``extra``; Celery's formatter, and formatting, add the last ones.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "task_id", "task_name", "data"}
