"""`python -m tests.fault.chaos` (`make chaos`): workflows of random shape, while whatever runs them is killed.

Everything is drawn from a seed, which is printed first; when which fault meets which task is the machine's doing. Every
process is its own. Afterwards every run is held against what the same workflow comes to in this process, and the store
is searched for what should not be there. Exit status 1 if anything is wrong; then it says what, with the event log of
the runs concerned, and keeps the logs of all processes.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from graflow_celery.celery_backend.compiler import NODE_TASK
from graflow_celery.testing import wait_until
from tests.fault.audit import Audited, Stall, audit_run, by_fault, lingering, spread
from tests.fault.chaos_client import run_id
from tests.fault.chaos_faults import FAULTS, Chaos
from tests.fault.chaos_stage import Stage
from tests.fault.chaos_workflows import build

logger = logging.getLogger(__name__)

#: Seconds without any run ending after which what is left counts as stuck.
PATIENCE = 60.0
AGAIN = frozenset({"node_retried", "node_iterated", "node_waiting"})
RABBITMQ = os.environ.get("GRAFLOW_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//")


def main() -> int:
    chosen = _arguments()
    console = Console(width=150 if not sys.stdout.isatty() else None, highlight=False, markup=False)
    console.print(f"seed {chosen.seed}: {chosen.runs} runs, {chosen.workers} x {chosen.concurrency}, {chosen.broker}")
    logging.basicConfig(level=logging.INFO if chosen.verbose else logging.WARNING, format="%(asctime)s %(message)s")
    began = time.monotonic()
    with Stage(
        seed=chosen.seed,
        runs=chosen.runs,
        workers=chosen.workers,
        concurrency=chosen.concurrency,
        clients=chosen.clients,
        pace=chosen.pace,
        broker=RABBITMQ if chosen.broker == "rabbitmq" else "",
        fsync=chosen.fsync,
    ) as stage:
        chaos = Chaos(stage, chosen.seed, chosen.faults, chosen.every)
        chaos.start_clients()
        chaos.rage(chosen.minutes * 60)
        raged = time.monotonic() - began
        settled = chaos.calm(PATIENCE, lambda: _ended(stage, chosen.seed, chosen.runs))
        console.print(f"{len(chaos.done)} faults in {raged:.0f} s; all at rest after {time.monotonic() - began:.0f} s")
        wrong = list(chaos.complaints) + ([] if settled else [f"no run ended within {PATIENCE:g} s"])
        found = [audit_run(chosen.seed, number, stage.settings) for number in range(chosen.runs)]
        _drained(stage)
        keys, messages = lingering(stage.client, stage.keys, stage.queue)
        wrong += keys
        _tell(console, chaos, stage, found, messages)
        wrong += stage.stop()
        bad = [one for one in found if one.wrong]
        _complain(console, chosen.seed, wrong, bad)
        if wrong or bad or chosen.logs:
            kept = Path(chosen.logs or f"chaos-logs-{chosen.seed}").resolve()
            stage.keep(kept)
            (kept / "faults.txt").write_text(
                "".join(f"{f.at:.3f} {f.kind} {f.target} {f.detail}\n" for f in chaos.done)
            )
            for one in found:
                (kept / f"{one.run}.events").write_text(one.log())
            console.print(f"logs of all processes: {kept}")
    return 1 if wrong or bad else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fault.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=30.0, help="for how long faults are done at the most")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two faults, on average")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--pace", type=float, default=1.0, help="makes tasks take so many times longer than drawn")
    parser.add_argument("--broker", choices=["redis", "rabbitmq"], default="redis")
    parser.add_argument("--fsync", choices=["everysec", "always"], default="always")
    parser.add_argument("--faults", type=_kinds, default=list(FAULTS), help=f"of {','.join(FAULTS)}; or none")
    parser.add_argument("--logs", help="where logs are kept; by default only if something is wrong")
    parser.add_argument("--verbose", action="store_true", help="print each fault as it is done")
    return parser.parse_args()


def _kinds(text: str) -> list[str]:
    kinds = [] if text == "none" else text.split(",")
    for kind in kinds:
        if kind not in FAULTS:
            raise argparse.ArgumentTypeError(f"'{kind}' is none of {', '.join(FAULTS)}")
    return kinds


def _ended(stage: Stage, seed: int, runs: int) -> int:
    """How many runs have ended."""
    with stage.client.pipeline(transaction=False) as pipe:
        for number in range(runs):
            pipe.hget(stage.keys.run(run_id(seed, number)).meta, "finished")
        return sum(found is not None for found in pipe.execute())


def _drained(stage: Stage) -> None:
    """Waits until the workers have seen to what is left in the queue; what they do not see to is reported."""
    try:
        wait_until(lambda: not stage.client.llen(stage.queue), timeout=15, description="an empty queue")
    except TimeoutError as error:
        logger.warning("%s", error)


def _tell(console: Console, chaos: Chaos, stage: Stage, found: list[Audited], messages: dict[str, int]) -> None:
    stalls: list[Stall] = [stall for one in found for stall in one.stalls]
    table = Table(title="seconds: median / 95th percentile / longest, until the next attempt began")
    for heading in ("fault", "done", "attempts lost", "given back", "since the fault", "since the event"):
        table.add_column(heading, justify="left" if heading == "fault" else "right")
    rows = by_fault(chaos.done, stalls)
    for kind in (*(kind for kind in FAULTS if kind in rows), *(kind for kind in rows if kind not in FAULTS)):
        row = rows[kind]
        cells = (row.done, row.lost, row.returned, spread(row.since_fault), spread(row.since_event))
        table.add_row(kind, *(str(cell) for cell in cells))
    console.print(table)
    ends = [str(event["event"]) for one in found for event in one.events if str(event["event"]).startswith("run_")]
    started = sum(event["event"] == "node_started" for one in found for event in one.events)
    again = sum(event.get("count", 1) for one in found for event in one.events if event["event"] == "carried_out")
    console.print(
        f"attempts started {started}; commands carried out by a monitor {again}; refused as stale "
        f"{_refused(stage, found)}; "
        + ", ".join(f"{end[4:]} {ends.count(end)}" for end in sorted(set(ends) - {"run_submitted", "run_started"}))
    )
    console.print("left over: " + ", ".join(f"{count} {name}" for name, count in messages.items()))
    worst = sorted(stalls, key=lambda stall: stall.lost_at - stall.started_at)[:5]
    for stall in worst:
        console.print(f"  {stall.started_at - stall.lost_at:.2f} s {stall.run} {stall.node}: {stall.reason}")


def _refused(stage: Stage, found: list[Audited]) -> int:
    """How many messages came to nothing because another attempt counts: Celery notes them, and those in ``AGAIN``."""
    again = sum(event["event"] in AGAIN for one in found for event in one.events)
    return max(0, stage.matches(stage.workers, f"Task {NODE_TASK}", "] ignored") - again)


def _complain(console: Console, seed: int, wrong: list[str], bad: list[Audited]) -> None:
    for text in wrong:
        console.print(f"WRONG: {text}")
    for one in bad[:5]:
        console.print(f"WRONG: run {one.run} (seed {seed}, number {one.number}): " + "; ".join(one.wrong))
        console.print(one.log())
        console.print(build(seed, one.number).to_mermaid())
    for one in bad[5:]:
        console.print(f"WRONG: run {one.run} (seed {seed}, number {one.number}): " + "; ".join(one.wrong))
    console.print("nothing is wrong" if not wrong and not bad else f"{len(wrong)} things and {len(bad)} runs are wrong")


if __name__ == "__main__":
    sys.exit(main())
