"""What the Scheduler wants done. Imperative, frozen; a command has one text form, under which the outbox keeps it.

``node`` and ``group`` are activation keys (see `activation`). ``graph`` names the graph that a node belongs to, if it
was added while the run went on; it is empty for the nodes of the workflow as written.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from graflow_celery.core.quick import quick
from graflow_celery.errors import RunStateError


@quick
@dataclass(frozen=True, slots=True)
class DispatchNode:
    """Send attempt ``attempt`` of a task to a worker."""

    node: str
    attempt: int
    graph: str = ""


@dataclass(frozen=True, slots=True)
class OpenGroup:
    """Send the tasks that a parallel group starts with; of a mapped task: count its items first.

    Groups that it starts with have commands of their own.
    """

    group: str
    graph: str = ""


@dataclass(frozen=True, slots=True)
class OpenMembers:
    """Send the members for items ``first`` to ``first + count - 1`` of a mapped task that has ``total`` items."""

    group: str
    first: int
    count: int
    total: int
    graph: str = ""


@quick
@dataclass(frozen=True, slots=True)
class CloseBarrier:
    """Ask a group's policy about its outcomes and tell the Scheduler what it said."""

    group: str
    graph: str = ""


@quick
@dataclass(frozen=True, slots=True)
class SkipNode:
    """Tell the Scheduler that the node is unreachable now."""

    node: str
    graph: str = ""


@dataclass(frozen=True, slots=True)
class FinishNode:
    """Tell the Scheduler that the tasks which a node added are done, so that the node is.

    ``group`` holds those tasks; ``failure`` says what went wrong with them, ``goto`` where they jump.
    """

    node: str
    attempt: int
    group: str
    failure: str | None = None
    goto: tuple[str, ...] = ()
    leaves: bool = False
    graph: str = ""


@dataclass(frozen=True, slots=True)
class ExpireGroup:
    """The group's time is up: close its barrier with what has ended by now."""

    group: str
    graph: str = ""


@dataclass(frozen=True, slots=True)
class ExpireRun:
    """The run's time is up, after ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ExpireFeedback:
    """Nobody answered ``request``, which a node asked, in the time it gave; the node waits as attempt ``attempt``."""

    node: str
    attempt: int
    request: str
    graph: str = ""


Command = (
    DispatchNode
    | OpenGroup
    | OpenMembers
    | CloseBarrier
    | SkipNode
    | FinishNode
    | ExpireGroup
    | ExpireRun
    | ExpireFeedback
)

_VERBS: dict[str, Callable[..., Command]] = {
    "dispatch": DispatchNode,
    "open": OpenGroup,
    "members": OpenMembers,
    "close": CloseBarrier,
    "skip": SkipNode,
    "finish": FinishNode,
    "expire-group": ExpireGroup,
    "expire-run": ExpireRun,
    "expire-feedback": ExpireFeedback,
}
_NAMES = {kind: verb for verb, kind in _VERBS.items()}


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


@lru_cache(8192)
def to_text(command: Command) -> str:
    """The command as a JSON array, ``["dispatch","clean",1]``; equal commands have equal texts."""
    fields = [getattr(command, name) for name in command.__slots__]
    if fields[-1] == "":
        fields.pop()
    return _encode([_NAMES[type(command)], *fields])


def from_text(text: str) -> Command:
    """Raises :exc:`RunStateError` for a text that no version of this package wrote."""
    try:
        verb, *fields = json.loads(text)
        return _VERBS[verb](*(tuple(item) if isinstance(item, list) else item for item in fields))
    except (ValueError, KeyError, TypeError):
        raise RunStateError(f"Not a command: {text[:80]!r}. Was it written by a newer version?") from None


def graph_of(command: Command) -> str:
    """The added graph that a command belongs to; empty for the workflow as written."""
    return "" if isinstance(command, ExpireRun) else command.graph
