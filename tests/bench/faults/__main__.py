"""`python -m tests.bench.faults` (`make bench-faults`): a worker dies or hangs; how long until what it held runs again.

Ours and plain Celery take turns on the same server: ours with its default settings, plain Celery with its defaults and
with `acks_late` and `reject_on_worker_lost`. Every try has fresh queues and keys. The tasks block on a gate, so none
ends before the bench lets it. A wait ends after 20 s; plain Celery is not tried again after two that did not recover.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import redis
from rich.console import Console

from tests.bench.faults import crashes
from tests.bench.faults.alarms import false_alarms
from tests.bench.faults.cost import of_heartbeats
from tests.bench.faults.crashes import SEED, Try
from tests.bench.faults.load import on_the_server
from tests.bench.faults.sides import RABBITMQ, Opened, Ours, Place, Plain, rabbitmq_answers
from tests.bench.faults.table import HEADINGS, TITLE, Row, summary, within
from tests.bench.table import facts, markdown, shown

LOST_CAUSES = 2


@dataclass(frozen=True)
class Figure:
    """One fault that is tried many times. ``bar``: seconds for the median; ``worst``: for each try."""

    name: str
    text: str
    bar: float
    worst: float
    fault: Callable[[Opened], Try]
    broker: str = ""
    ours: dict[str, Any] = field(default_factory=dict)
    plain: bool = True


LEASE_ONLY = {"env": {"GRAFLOW_CELERY_DEATH_WATCH": "false"}}
KILLED = "SIGKILL of a node with 2 tasks running and 2 prefetched, until all four run elsewhere"
FIGURES = (
    Figure("kill-seen", f"{KILLED}; its death is seen at once", 1, 5, crashes.killed),
    Figure("kill-lease", f"{KILLED}; only its lease tells", 3, 5, crashes.killed, ours=LEASE_ONLY, plain=False),
    Figure("rabbitmq-seen", f"{KILLED}; RabbitMQ; seen at once", 1, 5, crashes.killed, RABBITMQ),
    Figure(
        "rabbitmq-lease", f"{KILLED}; RabbitMQ; only its lease tells", 3, 5, crashes.killed, RABBITMQ, LEASE_ONLY, False
    ),
    Figure("stop", "SIGSTOP of such a node, until all four run elsewhere", 5, 5, crashes.hung),
    Figure("rabbitmq-stop", "the same with RabbitMQ", 5, 5, crashes.hung, RABBITMQ),
    Figure(
        "fail-seen",
        'SIGKILL, `on_worker_loss="fail"`, until the caller has its error; seen at once',
        3,
        3,
        crashes.failed_fast,
        ours={"fail_fast": True},
    ),
    Figure(
        "fail-lease",
        "the same; only its lease tells",
        3,
        5,
        crashes.failed_fast,
        ours={"fail_fast": True, **LEASE_ONLY},
        plain=False,
    ),
    Figure("child", "SIGKILL of a pool process, until its task runs again", 1, 1, crashes.child_killed),
)


def measure(figure: Figure, place: Place, runs: int, plain: bool, say: Callable[[str], None]) -> Row:
    """Ours, plain, plain late, ours, ... as often as asked."""
    sides: dict[str, Opened] = {"ours": partial(Ours, place, figure.broker, **figure.ours)}
    if figure.plain and plain:
        sides["plain"] = partial(Plain, place, figure.broker, late=False)
        sides["plain late"] = partial(Plain, place, figure.broker, late=True)
    tries: dict[str, list[Try]] = {side: [] for side in sides}
    for number in range(runs):
        for side, opened in sides.items():
            if side != "ours" and sum(item.seconds is None for item in tries[side]) >= LOST_CAUSES:
                continue
            tries[side].append(figure.fault(opened))
            say(f"{figure.name} {number + 1}/{runs} {side}: {summary(tries[side][-1:])}")
    bar = f"{figure.bar:g} s" if figure.worst == figure.bar else f"{figure.bar:g} s, worst {figure.worst:g} s"
    others = [
        summary(tries.get(side, [])) if figure.plain else "as in the line above" for side in ("plain", "plain late")
    ]
    holds = within(tries["ours"], figure.bar, figure.worst)
    return Row(figure.text, bar, summary(tries["ours"]), holds, *others)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.faults", description=__doc__)
    parser.add_argument("--runs", type=int, default=0, help="tries of each fault; 10, or 3 with --quick")
    parser.add_argument("--minutes", type=float, default=0, help="of work for false alarms; 10, or 1 with --quick")
    parser.add_argument("--quick", action="store_true", help="three tries of each fault, a minute of work")
    parser.add_argument("--only", default="", help="only the figures whose name holds this text")
    parser.add_argument("--ours", action="store_true", help="leave plain Celery out of the faults")
    parser.add_argument("--markdown", type=Path, help="write the table there too")
    chosen = parser.parse_args(arguments)
    runs = chosen.runs or (3 if chosen.quick else 10)
    minutes = chosen.minutes or (1 if chosen.quick else 10)
    logging.getLogger("graflow_celery").setLevel(logging.ERROR)  # Not that no worker consumes a queue yet.
    console = Console(width=180 if not sys.stdout.isatty() else None)
    rows: list[Row] = []
    rabbit = rabbitmq_answers()
    with Place() as place:
        here = facts(redis.Redis.from_url(place.server.url), f"seed {SEED}")
        console.print(here)
        for figure in FIGURES:
            if chosen.only not in figure.name:
                continue
            if figure.broker and not rabbit:
                console.print(f"{figure.name}: no RabbitMQ answers at the place that GRAFLOW_TEST_RABBITMQ names")
                continue
            rows.append(measure(figure, place, runs, not chosen.ours, console.print))
        loads: dict[str, Callable[[], Row]] = {
            "cost": lambda: of_heartbeats(place, 10 if chosen.quick else 30, console.print),
            "load": lambda: on_the_server(place, 10 if chosen.quick else 30, console.print),
            "alarms": lambda: false_alarms(place, minutes, console.print),
        }
        rows += [measured() for name, measured in loads.items() if chosen.only in name]
    console.print(shown(TITLE, HEADINGS, rows))
    if chosen.markdown:
        chosen.markdown.write_text(markdown(HEADINGS, rows, here), encoding="utf-8")
    return 0 if all(row.holds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
