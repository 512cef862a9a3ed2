"""False alarms: workers that are busy beyond all measure, and alive."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable

from graflow_celery import Run
from tests.bench.faults import flows
from tests.bench.faults.gate import pass_time
from tests.bench.faults.nodes import Node
from tests.bench.faults.sides import Ours, Place, Plain
from tests.bench.faults.table import Row

OVERSUBSCRIPTION = 4
NODES = 4
TASK_SECONDS = 30.0
PROBE = 20_000_000
#: Plain Celery's share: what it logs does not depend on the time.
MOST_PLAIN_MINUTES = 2.0
ALARMS = ("node_lost", "node_returned")


def false_alarms(place: Place, minutes: float, say: Callable[[str], None]) -> Row:
    """Four nodes whose pools together have four busy processes for each core; each task holds the GIL for some 30 s."""
    busy = OVERSUBSCRIPTION * (os.cpu_count() or 1)
    count = _numbers_to_sum()
    found, tasks = _ours(place, minutes, busy, count, say)
    alarms = sum(found.values())
    plain_minutes = min(minutes, MOST_PLAIN_MINUTES)
    missed = _plain(place, plain_minutes, busy, count)
    return Row(
        f"false alarms in {minutes:g} minutes of CPU-bound work, {busy} busy processes on {os.cpu_count()} cores, "
        f"each call holds the GIL for {TASK_SECONDS:g} s",
        "0",
        f"{alarms} in {tasks} tasks" + "".join(f"; {name}: {number}" for name, number in found.items()),
        alarms == 0,
        f"{missed} 'missed heartbeat' in the logs of {plain_minutes:g} minutes; nothing is replaced",
        "the same",
    )


def _ours(place: Place, minutes: float, busy: int, count: int, say: Callable[[str], None]) -> tuple[Counter[str], int]:
    until = time.monotonic() + 60 * minutes
    with Ours(place) as session:
        _started([session.node(f"N{number}", busy // NODES) for number in range(NODES)])
        runs: list[Run] = []
        while time.monotonic() < until:
            runs.append(flows.burning(busy, count).submit(settings=session.settings))
            if len(runs) > 1:  # One run ahead, so that no process is ever idle.
                runs[-2].wait(timeout=20 * TASK_SECONDS)
            say(f"false alarms: {len(runs)} rounds of {busy} tasks, {max(0.0, until - time.monotonic()):.0f} s to go")
        runs[-1].wait(timeout=20 * TASK_SECONDS)
        events = Counter(str(record["event"]) for run in runs for record in run.events())
        failed = Counter({f"run {run.status}": 1 for run in runs if run.status != "succeeded"})
    return Counter({name: events[name] for name in ALARMS if events[name]}) + failed, events["node_succeeded"]


def _plain(place: Place, minutes: float, busy: int, count: int) -> int:
    with Plain(place, late=True) as session:
        nodes = [session.node(f"N{number}", busy // NODES) for number in range(NODES)]
        _started(nodes)
        for _ in range(int(60 * minutes / TASK_SECONDS) * busy + busy):
            session.send_burn(count)
        logs = _missed_in(nodes)  # What was missed while they started is not of this load.
        pass_time(60 * minutes)
        return _missed_in(nodes) - logs


def _missed_in(nodes: list[Node]) -> int:
    return sum(len(re.findall("missed heartbeat from", node.process.output())) for node in nodes)


def _started(nodes: list[Node]) -> None:
    for node in nodes:
        node.wait_ready()


def _numbers_to_sum() -> int:
    """So many that summing them takes ``TASK_SECONDS`` where four processes share a core."""
    began = time.process_time()
    sum(range(PROBE))
    return int(PROBE * TASK_SECONDS / OVERSUBSCRIPTION / (time.process_time() - began))
