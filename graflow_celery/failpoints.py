"""Places at which a test lets a process of a distributed run die: between every two steps that it takes.

They do nothing unless the environment names a directory: ``GRAFLOW_CELERY_FAILPOINTS=DIR``. Then a process that reaches
a point looks there for what :func:`arm` has put down for it, takes it, so that it happens once over all processes, and
does it. The processes of a pool, and whatever else a worker starts, inherit the variable.
"""

from __future__ import annotations

import os
import signal
from enum import StrEnum
from pathlib import Path

VARIABLE = "GRAFLOW_CELERY_FAILPOINTS"


class Point(StrEnum):
    """Where a process may die. The first word says who goes through there; most points name a node or a group."""

    RUN_CREATED = "run.created"  # the run is in the store, nothing of it was sent

    NODE_RECEIVED = "node.received"  # the message is at its process, the store does not know
    NODE_BEGUN = "node.begun"  # the store says it runs, its code was not called
    NODE_RAN = "node.ran"  # the code came to its end, its outcome is not committed
    NODE_COMMITTED = "node.committed"  # what follows was not sent
    NODE_FOLLOWED = "node.followed"  # what follows was sent, the message was not acknowledged

    GROUP_EXPANDING = "group.expanding"  # the items of a mapped task are kept, their number is not committed
    GROUP_EXPANDED = "group.expanded"  # the members were not sent

    MESSAGES_MADE = "messages.made"  # committed, nothing was sent
    MESSAGES_BROKEN_OFF = "messages.broken_off"  # the first message of several was sent
    MESSAGES_SENT = "messages.sent"  # the outbox does not know
    MESSAGES_ACKNOWLEDGED = "messages.acknowledged"  # all is done

    BARRIER_RECEIVED = "barrier.received"  # nothing was looked at
    BARRIER_JUDGED = "barrier.judged"  # the verdict is not committed
    BARRIER_COMMITTED = "barrier.committed"  # what follows was not sent
    BARRIER_FOLLOWED = "barrier.followed"  # what follows was sent, the message was not acknowledged

    CHILD_DIED = "child.died"  # a worker saw a process of its pool die, the store does not know
    CHILD_REPLACED = "child.replaced"  # its task is with another process, the old message was not acknowledged

    MONITOR_DECLARED = "monitor.declared"  # workers are declared dead, nothing was done about it
    MONITOR_LOSING = "monitor.losing"  # that an attempt was lost is not committed
    MONITOR_LOST = "monitor.lost"  # the attempt that takes over was not sent
    MONITOR_BURYING = "monitor.burying"  # all was seen to that a dead worker left
    MONITOR_BURIED = "monitor.buried"  # the dead worker is forgotten
    MONITOR_CLAIMED = "monitor.claimed"  # late commands are moved on, not carried out


class Action(StrEnum):
    """What happens to the process, or to its worker: the process that loaded this module first, and all of its pool."""

    EXIT = "exit"
    KILL = "kill"
    STOP = "stop"
    KILL_WORKER = "kill-worker"
    STOP_WORKER = "stop-worker"


_DIRECTORY = os.environ.get(VARIABLE, "")
_MAIN = os.getpid()
#: Whether points may be armed.
ON = bool(_DIRECTORY)


def reach(point: Point, subject: str = "") -> None:
    """Does what was armed for a point. ``subject``: the node or group that is gone on with."""
    if _DIRECTORY:
        _obey(point, subject)


def arm(directory: Path, point: Point, action: Action, subject: str = "", times: int = 1) -> None:
    """Has the first process, or the first few, that reach a point die; with ``subject`` there for that alone."""
    for number in range(times):
        draft = directory / f"draft-{point}"
        draft.write_text(f"{action} {subject}")
        draft.rename(directory / f"armed-{point}-{number}")


def fired(directory: Path, point: Point) -> list[int]:
    """The processes that died at a point."""
    return [int(path.name.rpartition("-")[2]) for path in directory.glob(f"fired-{point}-*")]


def _obey(point: Point, subject: str) -> None:
    for armed in sorted(Path(_DIRECTORY).glob(f"armed-{point}-*")):
        try:
            action, _, wanted = armed.read_text().partition(" ")
            if wanted not in ("", subject):
                continue
            armed.rename(armed.with_name(f"{armed.name.replace('armed', 'fired', 1)}-{os.getpid()}"))
        except FileNotFoundError:  # another process took it
            continue
        _do(Action(action))


def _do(action: Action) -> None:
    if action is Action.EXIT:
        os._exit(1)
    number = signal.SIGSTOP if action in (Action.STOP, Action.STOP_WORKER) else signal.SIGKILL
    if action in (Action.KILL_WORKER, Action.STOP_WORKER) and os.getpid() != _MAIN:
        os.kill(_MAIN, number)
    os.kill(os.getpid(), number)
