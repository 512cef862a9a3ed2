"""What heartbeats cost a worker that has nothing to do, and how many threads they take."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil  # type: ignore[import-untyped]

from tests.bench.faults.gate import pass_time
from tests.bench.faults.sides import Ours, Place, Plain, Session
from tests.bench.faults.table import Row

BUSY = 8
LABELS = tuple(f"task{number}" for number in range(BUSY))
LEAN = ("--without-gossip", "--without-mingle")
MOST = 1.0


@dataclass(frozen=True)
class Cost:
    """Percent of a core of an idle worker outside of its pool; threads of all its processes, idle and with 8 tasks."""

    percent: float
    idle_threads: int
    busy_threads: int

    def __str__(self) -> str:
        return (
            f"{self.percent:.2f} % of a core, {self.idle_threads} threads idle, {self.busy_threads} with {BUSY} tasks"
        )


def of_heartbeats(place: Place, seconds: float, say: Callable[[str], None]) -> Row:
    """The difference to a plain worker with the same options, which has heartbeats of Celery's own."""
    ours = _cost(Ours(place), seconds)
    say(f"cost: ours {ours}")
    lean = _cost(Plain(place, late=True), seconds, *LEAN)
    say(f"cost: plain with the same options {lean}")
    plain = _cost(Plain(place, late=False), seconds)
    say(f"cost: plain, defaults {plain}")
    more = ours.percent - lean.percent
    return Row(
        f"steady cost of heartbeats to an idle worker with {BUSY} pool processes, over {seconds:g} s",
        f"under {MOST:g} % CPU, no thread more for a task",
        f"{more:+.2f} % of a core: {ours}",
        more < MOST and ours.busy_threads == ours.idle_threads,
        str(plain),
        f"{lean} ({' '.join(LEAN)}, as ours)",
    )


def _cost(session: Session, seconds: float, *arguments: str) -> Cost:
    with session:
        node = session.node("A", BUSY, *arguments)
        node.wait_ready()
        # It has done something once, so that what is loaded on first use is not counted.
        session.submit(LABELS)
        marks = session.gate.wait_begun(BUSY)
        pool = {mark.pid for mark in marks}
        busy = _threads(node.processes())
        session.gate.open()
        session.problems(dict.fromkeys(LABELS, "A"))
        outside = [process for process in node.processes() if process.pid not in pool]
        before, began = _cpu(outside), time.monotonic()
        pass_time(seconds)
        used = _cpu(outside) - before
        return Cost(100 * used / (time.monotonic() - began), _threads(node.processes()), busy)


def _cpu(processes: list[psutil.Process]) -> float:
    used = [process.cpu_times() for process in processes]
    return sum(float(times.user + times.system) for times in used)


def _threads(processes: list[psutil.Process]) -> int:
    return sum(int(process.num_threads()) for process in processes)
