"""Rows of latencies: percentiles of many samples, taken by turns, by the clock that all processes share."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from tests.bench.speed import flows
from tests.bench.speed.counts import Counts
from tests.bench.speed.figures import percentile
from tests.bench.speed.races import Bench
from tests.bench.speed.report import Row
from tests.bench.speed.work import nap

PERCENTILES = (50, 90, 99)
#: Seconds between two samples, in which the workers become idle.
APART = 0.02


def submit(bench: Bench) -> list[Row]:
    """From the submit to the begin of the first node, on workers that do nothing else."""
    raw, ours, wf = bench.stage.raw, bench.stage.ours, flows.first()

    def mine() -> float:
        began = time.monotonic()
        return float(ours.run(wf)) - began

    def theirs() -> float:
        began = time.monotonic()
        return float(raw.app.first()) - began

    return [_row(bench, "latency-submit", "submit to the first node's begin, idle workers", mine, theirs)]


def barrier(bench: Bench) -> list[Row]:
    """From the end of a group's last member to the begin of what follows the barrier."""
    raw, ours, width = bench.stage.raw, bench.stage.ours, bench.sizes.width
    mine = partial(ours.run, flows.after_barrier(width))
    text = f"end of the last of {width} members to the next node's begin"
    return [_row(bench, "latency-barrier", text, mine, partial(raw.app.after_barrier, width))]


def _row(bench: Bench, name: str, text: str, mine: Callable[[], float], theirs: Callable[[], float]) -> Row:
    found = ([float("nan")] * 0, [float("nan")] * 0)
    mine(), theirs()
    for _ in range(bench.sizes.samples):
        for series, sample in zip(found, (mine, theirs), strict=True):
            nap(APART)
            series.append(sample())
    return Row(
        name,
        f"{text}; {bench.sizes.samples} samples: {', '.join(f'p{percent}' for percent in PERCENTILES)}",
        "raw Celery",
        percentile(found[1], 50) / percentile(found[0], 50),
        None,
        _percentiles(found[0]),
        _percentiles(found[1]),
        ours=[Counts(seconds) for seconds in found[0]],
        theirs=[Counts(seconds) for seconds in found[1]],
    )


def _percentiles(seconds: list[float]) -> str:
    return " / ".join(f"{1000 * percentile(seconds, percent):.1f}" for percent in PERCENTILES) + " ms"
