"""Rows against other task queues, each in an environment of its own, and running only while it is measured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from tempfile import TemporaryDirectory

from graflow_celery import WorkflowContext
from graflow_celery.embedded.process import GuardedProcess
from graflow_celery.embedded.scratch import ScratchDirectory
from tests.bench.processes import running, wait_ready
from tests.bench.speed import flows
from tests.bench.speed.counts import PAUSE, Counts
from tests.bench.speed.figures import Bar
from tests.bench.speed.races import Bench, Rounds
from tests.bench.speed.races import running as ours
from tests.bench.speed.report import Row, times
from tests.bench.speed.work import nap

DRIVERS = Path(__file__).with_name("peers")
#: Where `make bench-peers` puts them.
HOME = Path(__file__).parents[3] / ".peers"
#: How many times faster than these a barrier over 1,000 is meant to be.
GOALS = {"huey": 1.5, "ray": 2.0}
NAMES = ("huey", "ray", "dask")
TIMEOUT = 300.0
#: Seconds in which a peer ends its own workers.
GRACE = 10.0


class Rival:
    """A peer's driver, which does what it is told."""

    def __init__(self, process: GuardedProcess, line: Connection) -> None:
        self._process = process
        self._line = line

    def go(self, work: str, *sizes: int) -> Counts:
        """One round. Raises RuntimeError: the driver ended, or took too long."""
        nap(PAUSE)
        self._line.send((work, sizes))
        try:
            if self._line.poll(TIMEOUT):
                return Counts(float(self._line.recv()))
        except EOFError:
            pass
        raise RuntimeError(f"{self._process.name} did not do {work}.{self._process.last_words()}")


def interpreter(name: str, home: Path) -> Path | None:
    """The Python that has the peer; None if `make bench-peers` did not make it."""
    found = home / name / "bin" / "python"
    return found if found.exists() else None


@contextmanager
def started(name: str, python: Path, redis_url: str) -> Iterator[Rival]:
    """A peer, for the time of the block. ``redis_url``: for the one that uses it."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with TemporaryDirectory() as home, Listener(f"{home}/line.sock", "AF_UNIX") as listener:
        listening = listener._listener._socket  # type: ignore[attr-defined]  # It has no accept with a timeout.
        listening.settimeout(0.5)
        command = [str(python), str(DRIVERS / f"{name}_driver.py"), f"{home}/line.sock", redis_url]
        lines: list[Connection] = []

        def ready() -> bool:
            try:
                lines.append(listener.accept())
            except TimeoutError:
                return False
            return True

        with running(name, [command], ScratchDirectory(), env, GRACE) as processes:
            wait_ready(processes, ready)
            with lines[0] as line:
                assert line.recv() == "ready"
                yield Rival(processes[0], line)


def rows(bench: Bench, name: str, home: Path) -> list[Row]:
    """The barriers and the chain, ours and the peer by turns."""
    python = interpreter(name, home)
    sizes = bench.sizes
    if python is None:
        note = f"no {name} in {home}: make bench-peers"
        return [Row(f"{name}-barrier", f"barrier over {sizes.members:,} no-op members", name, None, note=note)]
    side, found = bench.stage.ours, []
    goal = Bar(GOALS[name], "least", goal=True) if name in GOALS else None
    with started(name, python, f"{bench.stage.raw.url}?db=1") as rival:

        def row(what: str, text: str, wf: WorkflowContext, per: int, bar: Bar | None, *numbers: int) -> Row:
            raced: Rounds = bench.race(ours(side, wf), partial(rival.go, what, *numbers))
            return Row(
                f"{name}-{what}-{numbers[0]}",
                text,
                name,
                raced.faster,
                bar,
                times(raced.ours, per),
                times(raced.theirs, per),
                ours=raced.ours,
                theirs=raced.theirs,
            )

        for members, bar in ((sizes.members, goal), (sizes.few, None)):
            text = f"barrier over {members:,} no-op members"
            found.append(row("barrier", text, flows.fan_out(members), 1, bar, members))
        count, width = sizes.barriers, sizes.width
        text = f"{count} barriers of {width}, each"
        found.append(row("barriers", text, flows.barriers(count, width), count, None, count, width))
        text = f"chain of {sizes.line}, each hop"
        found.append(row("line", text, flows.line(sizes.line), sizes.line, None, sizes.line))
    return found
