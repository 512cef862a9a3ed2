"""What a run waits for, and what befell it: plain values, fit for JSON. Made by `engine.explaining`.

Every time is in seconds since the epoch by the server's clock, which stamped it; ``at`` of the explanation is its now.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Deadline:
    """Something that happens at ``at`` unless something else happens before."""

    what: str
    at: float


@dataclass(frozen=True, slots=True)
class OpenNode:
    """A task that has not ended and that the run waits for.

    Attributes:
        node: its key: its id, and the pass unless it is the first.
        state: ``running``; ``queued``; ``delayed``: a retry whose time has not come; ``asking``: it waits for a person;
            ``waiting``: for the tasks that it added.
        since: since when it is so, or when a delayed one is due; 0 if that is not known.
        attempt, losses, retries: which attempt, how many processes it lost, how many failures came before.
        worker, pid, last_beat: who runs it, the pid of that worker's main process, and how many seconds ago it beat;
            None if it has no lease any more.
        queue: where its message is or was. ``consumers``: live workers that consume it. ``messages``: how many wait
            there; None if that is not known. ``held_by``: the worker that received it and has not begun it.
        request: of one that asks: the id of its request.
        deadlines: what comes next, the soonest first.
    """

    node: str
    state: str
    since: float
    attempt: int
    losses: int = 0
    retries: int = 0
    worker: str = ""
    pid: int | None = None
    last_beat: float | None = None
    queue: str = ""
    consumers: int = 0
    messages: int | None = None
    held_by: str = ""
    request: str = ""
    deadlines: tuple[Deadline, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenGroup:
    """A parallel group whose barrier has not closed.

    Attributes:
        members: how many; None if a mapped task's items are not counted yet. ``ended`` of them have ended.
        needs: what its policy still needs, in words.
        deadlines: as of :class:`OpenNode`.
    """

    node: str
    since: float
    members: int | None
    ended: int
    succeeded: int
    failed: int
    needs: str
    deadlines: tuple[Deadline, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What a task asks a person."""

    id: str
    node: str
    prompt: str
    command: str


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why the run does not go on by itself, and what to do."""

    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Happening:
    """An event that tells of something that went otherwise than it should. ``reason`` says what, and who saw to it."""

    at: float
    event: str
    node: str = ""
    attempt: int = 0
    worker: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that failed for good."""

    node: str
    error: str
    worker: str
    attempt: int
    losses: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """How a run stands, what it waits for, what befell it, and what can be done.

    Attributes:
        at: the server's time when it was asked. ``started``, ``finished``: of the run; None if it goes on.
        counts: of tasks, by state: those of ``nodes``, and ``succeeded``, ``failed``, ``skipped``.
        nodes: the tasks that it waits for: those that somebody has, then those that wait for their turn, the oldest
            first. ``more_nodes``: how many more there are.
        groups: the groups that are open, the oldest first; ``more_groups``: how many more there are.
        requests: what waits for a person.
        timeout: when the run ends by its timeout; None if it has none.
        monitor: who leads the monitors; None if nobody does.
        obstacles: why it does not go on, as far as that is known.
        happenings: the latest, in the order of time.
        failures: the tasks that failed; of a run that goes on, in groups that may bear it.
        advice: for a run that has ended otherwise than well: what could be done.
    """

    run: str
    workflow: str
    status: str
    reason: str
    at: float
    started: float
    finished: float | None
    counts: Mapping[str, int]
    nodes: tuple[OpenNode, ...] = ()
    more_nodes: int = 0
    groups: tuple[OpenGroup, ...] = ()
    more_groups: int = 0
    requests: tuple[Request, ...] = ()
    timeout: float | None = None
    monitor: str | None = None
    obstacles: tuple[Obstacle, ...] = ()
    happenings: tuple[Happening, ...] = ()
    failures: tuple[Failure, ...] = ()
    advice: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)
