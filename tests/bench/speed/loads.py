"""Rows of members that do some work, held to the best schedule there is."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import partial

from tests.bench.speed import flows, work
from tests.bench.speed.figures import Bar, best_schedule
from tests.bench.speed.races import Bench, entrant, running
from tests.bench.speed.report import Row, counted, times
from tests.bench.speed.stage import PROCESSES

PIECE = 0.01
SHORT = 0.001


def equal(bench: Bench, *, busy: bool) -> list[Row]:
    """Members of 10 ms. Those that sleep show what the engine adds; those that burn share the machine with it, too."""
    pieces = [PIECE] * (bench.sizes.burns if busy else bench.sizes.naps)
    what = "of a processor's time" if busy else "of real work (a sleep: the machine's cores are few and shared)"
    text = f"{len(pieces):,} members of {1000 * PIECE:g} ms {what}"
    bar = None if busy else Bar(5, "most", " % more")
    return [_held(bench, "work-burn" if busy else "work-10ms", text, pieces, bar, "burn" if busy else "nap")]


def unequal(bench: Bench) -> list[Row]:
    """Many short members and few long ones, in a shuffled order."""
    sizes = bench.sizes
    pieces = work.mixed(sizes.short, sizes.long, (SHORT, sizes.long_seconds))
    text = f"{sizes.short} members of {1000 * SHORT:g} ms and {sizes.long} of {sizes.long_seconds:g} s, shuffled"
    return [_held(bench, "mixed", text, pieces, Bar(10, "most", " % more"), "uneven")]


def _held(bench: Bench, name: str, text: str, pieces: Sequence[float], bar: Bar | None, kind: str) -> Row:
    """Against the best schedule of the pieces on the worker processes; raw Celery does the same by turns."""
    ideal, raw = best_schedule(pieces, PROCESSES), bench.stage.raw
    ours = running(bench.stage.ours, flows.working(kind, pieces))
    found = bench.race(ours, entrant(raw, partial(raw.app.working, kind, pieces)))
    mine, theirs = (statistics.median(item.seconds for item in side) for side in (found.ours, found.theirs))
    return Row(
        name,
        text,
        f"the best schedule, {ideal:.3f} s",
        100 * (mine / ideal - 1),
        bar,
        times(found.ours),
        f"raw Celery {times(found.theirs)}, {100 * (theirs / ideal - 1):.3g} % more",
        counted(found.ours, found.theirs, len(pieces), "member"),
        unit=" %",
        units=len(pieces),
        ours=found.ours,
        theirs=found.theirs,
    )
