"""A run on a terminal: one line a node, groups folded, redrawn while it goes on. Fits 80 columns."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import Self

from rich.console import Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from graflow_celery.ports import EventRecord
from graflow_celery.terminal.console import stdout, style_of, symbols
from graflow_celery.terminal.progress import (
    ASKING,
    FAILED,
    QUEUED,
    RUNNING,
    SKIPPED,
    SUCCEEDED,
    UNFINISHED,
    NodeProgress,
    ProgressModel,
)
from graflow_celery.terminal.wording import counted, counts, duration, first_line, missing, place, rate

REFRESHES = 8
BAR = 12
ROOM_FOR_ECHO = 3  # columns: a line that is full when the terminal echoes ^C would push the screen up
MEMBERS_SHOWN = 4  # a running group of so many tells of each; a larger one of those that run longest
LONGEST, ERRORS = 2, 3
LONG = 0.5  # seconds: who runs for less is not worth a line
TELL_LEFT = 1.0


@dataclass(frozen=True)
class Row:
    """A line of the tree: a node, and how deep it stands."""

    node: NodeProgress
    depth: int = 0


class Screen:
    """Feed it events from any thread. What it shows stays on the screen when it is closed."""

    def __init__(self, model: ProgressModel, title: str) -> None:
        self.model = model
        self._title = title
        self._lock = threading.Lock()
        self._signs = symbols()
        self._spinner = Spinner("dots" if self._signs[SUCCEEDED] == "✓" else "line", style=style_of(RUNNING))
        self._left: tuple[float, float | None] = (0.0, None)
        self._live = Live(
            console=stdout(), get_renderable=self._draw, refresh_per_second=REFRESHES, vertical_overflow="crop"
        )

    def feed(self, record: EventRecord) -> None:
        with self._lock:
            self.model.feed(record)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the terminal to somebody else for a while."""
        self._live.stop()
        try:
            yield
        finally:
            self._live.start(refresh=True)

    def _draw(self) -> RenderableType:
        with self._lock:
            now = time.time()
            console = stdout()
            told = self._told()
            room = max(3, console.height - 5 - len(told))
            shown, folded = fold(self.model.outermost, room)
            rows = tree(self.model, shown, room, now)
            parts: list[RenderableType] = [self._head(now), self._table(rows, now, console.width)]
            if folded:
                parts.append(Text(f"     {folded}", style="dim"))
            return Constrain(Group(*parts, *told), console.width - ROOM_FOR_ECHO)

    def _told(self) -> list[RenderableType]:
        """What stands below the tree: the last errors of members, and what keeps the run from moving."""
        model = self.model
        inside = [node for node in model.failures[-ERRORS:] if model.group_of(node) is not None]
        sign = self._signs[FAILED]
        told: list[RenderableType] = [
            Text(f"  {sign} {node.id}: {first_line(node.reason)}", style_of(FAILED), no_wrap=True, overflow="ellipsis")
            for node in inside
            if not model.has_ended
        ]
        waits = [f"waits: {model.refusal}"] if model.refusal else []
        waits += [model.differing] if model.differing else []
        waits += [missing(model.missing_queues)] if model.missing_queues else []
        return told + [Text(f"  {text}", style=style_of("warn")) for text in waits]

    def _head(self, now: float) -> RenderableType:
        head = Table.grid(expand=True)
        head.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        head.add_column(justify="right", no_wrap=True)
        left = self._guess(now)
        guess = "" if left is None or left < TELL_LEFT else f", about {duration(left)} left"
        head.add_row(Text(self._title, style="bold"), Text(f"{duration(self.model.seconds(now))}{guess}", style="dim"))
        return head

    def _guess(self, now: float) -> float | None:
        """Seconds until the run's end. Worked out once a second: it looks at every node."""
        at, left = self._left
        if now - at >= 1.0 or self.model.has_ended:
            at, left = self._left = (now, self.model.left(now))
        return None if left is None else max(0.0, left - (now - at))

    def _table(self, rows: Sequence[Row], now: float, width: int) -> RenderableType:
        drawn = Table.grid(padding=(0, 2, 0, 0), expand=True)
        drawn.add_column(width=1)
        longest = max((len(_name(row)) for row in rows), default=0)
        drawn.add_column(no_wrap=True, overflow="ellipsis", width=min(longest, max(12, width // 3)))
        drawn.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for row in rows:
            node = row.node
            state = self.model.state_of(node)
            sign = self._spinner if state == RUNNING else self._sign(state)
            name = Text(_name(row), style="dim" if state == "waiting" or row.depth else "")
            tail = self._group(node, state, now) if node.is_group else Text(_task(node, state, now), style=_tail(state))
            drawn.add_row(sign, name, tail)
        return Padding(drawn, (0, 0, 0, 2))

    def _sign(self, state: str) -> Text:
        return Text(self._signs.get(state, self._signs["waiting"]), style=style_of(state))

    def _group(self, node: NodeProgress, state: str, now: float) -> RenderableType:
        if state != RUNNING:
            return Text(_group(node, state, now), style=_tail(state))
        if not node.members:
            return Text("counts its items", style="dim")
        row = Table.grid(padding=(0, 2, 0, 0))
        row.add_row(
            ProgressBar(total=node.members, completed=node.done, width=BAR),
            Text(
                ", ".join([counts(node), *_pace(node, now)]),
                style=style_of("failed") if node.failed else "",
                no_wrap=True,
                overflow="ellipsis",
            ),
        )
        return row


def tree(model: ProgressModel, nodes: Sequence[NodeProgress], room: int, now: float) -> list[Row]:
    """The nodes, and under a group that runs its members, if they are few, or else those that run longest.

    No more lines than there is room for.
    """
    spare = room - len(nodes)
    rows: list[Row] = []
    for node in nodes:
        rows.append(Row(node))
        if model.state_of(node) == RUNNING and node.is_group:
            below = list(islice(_below(model, node, now), max(0, spare)))
            spare -= len(below)
            rows += below
    return rows


def _below(model: ProgressModel, group: NodeProgress, now: float) -> Iterator[Row]:
    """What is told of the members of a group that runs, the groups among them included."""
    pending: list[Row] = [Row(group)]
    while pending:
        row = pending.pop()
        if row.depth:
            yield row
        if not row.node.is_group or model.state_of(row.node) != RUNNING:
            continue
        spec, depth = model.specs[row.node.id], row.depth + 1
        if not row.node.mapped and row.node.members <= MEMBERS_SHOWN:
            pending += [Row(model.nodes[name], depth) for name in reversed(spec.exits)]
            continue
        # The order in which they began is that of the dictionary.
        longest = list(islice(row.node.running.values(), LONGEST))
        pending += [Row(node, depth) for node in reversed(longest) if node.seconds(now) >= LONG]


def _name(row: Row) -> str:
    return "  " * row.depth + (row.node.label or row.node.id)


def _pace(group: NodeProgress, now: float) -> list[str]:
    """How long it will take, how many end in a second, and how many run: what matters most comes first."""
    left = group.left(now)
    parts = [f"{duration(left)} left"] if left is not None and left >= TELL_LEFT else []
    parts += [rate(group.rate(now))] if left else []
    return parts + ([f"{group.active} running"] if group.active else [])


def fold(nodes: Sequence[NodeProgress], room: int) -> tuple[Sequence[NodeProgress], str]:
    """The nodes to show where there is room for so many lines, and a line that counts the others.

    What runs or failed comes before what waits or is done; the order stays.
    """
    if len(nodes) <= room:
        return nodes, ""
    ranked = sorted(range(len(nodes)), key=lambda index: (_rank(nodes[index]), index))
    kept = set(ranked[:room])
    left_out = [node for index, node in enumerate(nodes) if index not in kept]
    done = sum(node.state in (SUCCEEDED, SKIPPED) for node in left_out)
    parts = [f"{done} done"] if done else []
    parts += [f"{len(left_out) - done} to come"] if len(left_out) > done else []
    return [
        node for index, node in enumerate(nodes) if index in kept
    ], f"and {counted(len(left_out), 'node')} more: " + ", ".join(parts)


def _rank(node: NodeProgress) -> int:
    return {FAILED: 0, ASKING: 1, RUNNING: 1, QUEUED: 2, SUCCEEDED: 4, SKIPPED: 4}.get(node.state, 3)


def _tail(state: str) -> str:
    return style_of(state) if state in (FAILED, SKIPPED, UNFINISHED, ASKING) else "dim"


def _task(node: NodeProgress, state: str, now: float) -> str:
    again = f"attempt {node.attempt}  " if node.attempt > 1 else ""
    match state:
        case "queued":
            return f"{again}queued"
        case "running":
            return f"{again}{duration(node.seconds(now))}{place(node.worker)}"
        case "asking":
            return f"waits for a person: request {node.request}"
        case "succeeded":
            return f"{again}{duration(node.duration)}"
        case "failed":
            return f"{again}{first_line(node.reason)}"
    return _not_run(state)


def _group(node: NodeProgress, state: str, now: float) -> str:
    match state:
        case "succeeded":
            return f"{counts(node)}  {duration(node.seconds(now))}"
        case "failed":
            return first_line(node.reason)
        case "unfinished":
            return f"{counts(node)}  stopped"
    return f"{counted(node.members, 'member')}" if state == "waiting" else _not_run(state)


def _not_run(state: str) -> str:
    return {"skipped": "not reached", "unfinished": "stopped"}.get(state, "")
