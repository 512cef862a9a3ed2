"""What the Scheduler wants done. Imperative, frozen; a command has one text form, under which the outbox keeps it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from graflow_celery.errors import RunStateError


@dataclass(frozen=True, slots=True)
class DispatchNode:
    """Send attempt ``attempt`` of a task to a worker."""

    node: str
    attempt: int


@dataclass(frozen=True, slots=True)
class OpenGroup:
    """Send the members that a parallel group starts with."""

    group: str


@dataclass(frozen=True, slots=True)
class CloseBarrier:
    """Ask a group's policy about its outcomes and tell the Scheduler what it said."""

    group: str


@dataclass(frozen=True, slots=True)
class SkipNode:
    """Tell the Scheduler that the node is unreachable now."""

    node: str


Command = DispatchNode | OpenGroup | CloseBarrier | SkipNode

_VERBS: dict[str, type[DispatchNode | OpenGroup | CloseBarrier | SkipNode]] = {
    "dispatch": DispatchNode,
    "open": OpenGroup,
    "close": CloseBarrier,
    "skip": SkipNode,
}
_NAMES = {kind: verb for verb, kind in _VERBS.items()}


def to_text(command: Command) -> str:
    """The command as a JSON array, ``["dispatch","clean",1]``; equal commands have equal texts."""
    fields = [getattr(command, name) for name in command.__slots__]
    return json.dumps([_NAMES[type(command)], *fields], separators=(",", ":"), ensure_ascii=False)


def from_text(text: str) -> Command:
    """Raises :exc:`RunStateError` for a text that no version of this package wrote."""
    try:
        verb, *fields = json.loads(text)
        return _VERBS[verb](*fields)
    except (ValueError, KeyError, TypeError):
        raise RunStateError(f"Not a command: {text[:80]!r}. Was it written by a newer version?") from None
