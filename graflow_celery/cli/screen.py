"""A run on a terminal: one line a node, groups folded, redrawn while it goes on. Fits 80 columns."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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

from graflow_celery.cli import render
from graflow_celery.cli.progress import (
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
from graflow_celery.cli.wording import counted, counts, duration, first_line, missing, place
from graflow_celery.ports import EventRecord

REFRESHES = 8
BAR = 20
ROOM_FOR_ECHO = 3  # columns: a line that is full when the terminal echoes ^C would push the screen up


class Screen:
    """Feed it events from any thread. What it shows stays on the screen when it is closed."""

    def __init__(self, model: ProgressModel, title: str) -> None:
        self.model = model
        self._title = title
        self._lock = threading.Lock()
        self._signs = render.symbols()
        self._spinner = Spinner("dots" if self._signs[SUCCEEDED] == "✓" else "line", style=render.style_of(RUNNING))
        self._live = Live(
            console=render.stdout(), get_renderable=self._draw, refresh_per_second=REFRESHES, vertical_overflow="crop"
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
            console = render.stdout()
            shown, folded = fold(list(self.model.outermost), max(3, console.height - 5))
            parts: list[RenderableType] = [self._head(now), self._table(shown, now, console.width)]
            if folded:
                parts.append(Text(f"     {folded}", style="dim"))
            if self.model.refusal:
                parts.append(Text(f"  waits: {self.model.refusal}", style=render.style_of("warn")))
            if self.model.differing:
                parts.append(Text(f"  {self.model.differing}", style=render.style_of("warn")))
            if self.model.missing_queues:
                parts.append(Text(f"  {missing(self.model.missing_queues)}", style=render.style_of("warn")))
            return Constrain(Group(*parts), console.width - ROOM_FOR_ECHO)

    def _head(self, now: float) -> RenderableType:
        head = Table.grid(expand=True)
        head.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        head.add_column(justify="right", no_wrap=True)
        head.add_row(Text(self._title, style="bold"), Text(duration(self.model.seconds(now)), style="dim"))
        return head

    def _table(self, nodes: Sequence[NodeProgress], now: float, width: int) -> RenderableType:
        drawn = Table.grid(padding=(0, 2, 0, 0), expand=True)
        drawn.add_column(width=1)
        longest = max((len(node.id) for node in nodes), default=0)
        drawn.add_column(no_wrap=True, overflow="ellipsis", width=min(longest, max(12, width // 3)))
        drawn.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        for node in nodes:
            state = self.model.state_of(node)
            style = render.style_of(state)
            sign = (
                self._spinner if state == RUNNING else Text(self._signs.get(state, self._signs["waiting"]), style=style)
            )
            name = Text(node.id, style="dim" if state == "waiting" else "")
            tail = self._group(node, state, now) if node.is_group else Text(_task(node, state, now), style=_tail(state))
            drawn.add_row(sign, name, tail)
        return Padding(drawn, (0, 0, 0, 2))

    def _group(self, node: NodeProgress, state: str, now: float) -> RenderableType:
        if state != RUNNING:
            return Text(_group(node, state, now), style=_tail(state))
        row = Table.grid(padding=(0, 2, 0, 0))
        row.add_row(
            ProgressBar(total=node.members, completed=node.done, width=BAR),
            Text(
                counts(node) + (f", {node.active} running" if node.active else ""),
                style=render.style_of("failed") if node.failed else "",
            ),
        )
        return row


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
    return render.style_of(state) if state in (FAILED, SKIPPED, UNFINISHED, ASKING) else "dim"


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
