"""What Celery's events say of nodes, so that Flower has a row for each attempt, and a red one for each that failed.

To Celery a node's message ends well when its node failed: the outcome is committed, and the chord goes on. So the task
returns a :class:`Report` of the attempts that its message ran. The worker's main process gets the text of it, and sends
what became of the attempts in place of Celery's own ``task-succeeded``. Where a worker sends no events of tasks
(without ``-E``), nothing of this is done there.

https://docs.celeryq.dev/en/stable/userguide/monitoring.html has the events and their fields.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from graflow_celery.celery_backend.compiler import NODE_TASK, label, task_id
from graflow_celery.engine.terms import Entry
from graflow_celery.ports import RunRef

#: What a task's event may be and what it holds besides.
Told = tuple[str, dict[str, Any]]

#: Characters of a reason and of a traceback, of which the end is kept: it names the line that raised.
LONGEST_REASON = 500
LONGEST_TRACEBACK = 4000
#: Characters of tracebacks in one report; rows beyond have none. The run's own pages have them all.
MOST_TRACEBACKS = 40_000
#: Celery cuts the text of what a task returns off here: a report must not be cut.
LONGEST_REPORT = 64 << 20
_UNTERMINATED = {"terminated": False, "signum": None, "expired": False}


class Row(NamedTuple):
    """What came of one attempt: see `graflow_celery.engine.terms.Entry`."""

    node: str
    attempt: int
    state: str
    reason: str = ""
    seconds: float = 0.0
    traceback: str = ""


class Report:
    """What a message came to. Celery hands on to the main process only its text, which :func:`rows_in` reads."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._entries = entries

    def __repr__(self) -> str:
        left, told = MOST_TRACEBACKS, []
        for entry in self._entries:
            row = [entry.node, entry.attempt, entry.state, entry.reason[:LONGEST_REASON], round(entry.seconds, 6)]
            traceback = entry.traceback[-LONGEST_TRACEBACK:]
            left -= len(traceback)
            told.append([*row, traceback] if traceback and left >= 0 else row)
        return json.dumps(told, separators=(",", ":"))


def rows_in(text: object) -> list[Row] | None:
    """The rows that the text of a report tells; None if it is no report."""
    if not isinstance(text, str) or not text.startswith("["):
        return None
    try:
        return [Row(*fields) for fields in json.loads(text)]
    except (ValueError, TypeError):
        return None


def are_wanted(eventer: Any) -> bool:
    """Whether a worker sends events of tasks. It has a dispatcher without ``-E`` too, for events of workers alone."""
    return bool(eventer and eventer.enabled and (not eventer.groups or "task" in eventer.groups))


def events_of(message: str, run: RunRef, workflow: str, rows: Sequence[Row], now: float) -> Iterator[Told]:
    """Types and fields of the events that tell some rows, each of them for the task in its field ``uuid``.

    The attempt that has the message's own id was announced by Celery itself, and gets the event of its end. Of each
    other there is one event, which brings along what ``task-received`` and ``task-started`` would have said. A message
    whose id is none of theirs ends well, and says how many came to what; one of which nothing was let run is revoked.

    Args:
        message: Celery's id of the message.
        now: when the last of them ended, in seconds since the epoch. They ran one after the other.
    """
    own = False
    left = sum(row.seconds for row in rows)
    for row in rows:
        name = task_id(run, row.node, row.attempt)
        kind, fields = _end(row)
        if name == message:
            own = True
            yield kind, {"uuid": name, **fields}
        elif row.state != "returned":  # another message begins it, under the same id or another
            began = now - left
            yield told_of(run, workflow, row, began)
        left -= row.seconds
    if not rows:
        yield "task-revoked", {"uuid": message, **_UNTERMINATED}
    elif not own:
        counts = Counter(row.state for row in rows)
        told = ", ".join(f"{count} {state}" for state, count in counts.items())
        yield "task-succeeded", {"uuid": message, "result": told, "runtime": sum(row.seconds for row in rows)}


def told_of(run: RunRef, workflow: str, row: Row, began: float) -> Told:
    """The one event that tells all of an attempt."""
    kind, fields = _end(row)
    return kind, {
        "uuid": task_id(run, row.node, row.attempt),
        "name": NODE_TASK,
        "args": label(workflow, row.node, f"#{row.attempt}"),
        "kwargs": "",
        "root_id": run.id,
        "retries": 0,
        "received": began,
        "started": began,
        **fields,
    }


def _end(row: Row) -> Told:
    match row.state:
        case "failed":
            return "task-failed", {"exception": row.reason, "traceback": row.traceback, "runtime": row.seconds}
        case "retried" | "returned":
            return "task-retried", {"exception": row.reason or row.state, "traceback": row.traceback}
        case "running":
            return "task-started", {}
        case "stale":
            return "task-revoked", dict(_UNTERMINATED)
        case _:
            return "task-succeeded", {"result": row.state, "runtime": row.seconds}
