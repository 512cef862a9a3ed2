"""Rows in which two sides do the same work by turns."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

from graflow_celery import WorkflowContext
from tests.bench.speed import flows
from tests.bench.speed.counts import Counts, Work
from tests.bench.speed.figures import Bar, ratio
from tests.bench.speed.report import Row, counted, times
from tests.bench.speed.stage import Ours, Side, Stage

Entrant = Callable[[], Counts]


@dataclass(frozen=True)
class Sizes:
    """How much work there is. ``samples`` are those of a latency; ``idle`` the seconds of an idle period."""

    members: int = 1000
    few: int = 100
    barriers: int = 50
    width: int = 10
    line: int = 100
    naps: int = 1000
    burns: int = 200
    short: int = 990
    long: int = 10
    long_seconds: float = 1.0
    samples: int = 200
    idle: float = 3.0


#: To see that it all works. Its figures mean nothing.
QUICK = Sizes(
    members=20,
    few=5,
    barriers=3,
    width=3,
    line=5,
    naps=10,
    burns=10,
    short=10,
    long=2,
    long_seconds=0.05,
    samples=5,
    idle=0.3,
)


@dataclass(frozen=True)
class Rounds:
    """What the two sides of a race took."""

    ours: list[Counts]
    theirs: list[Counts]

    @property
    def faster(self) -> float:
        """How many times faster ours is."""
        return ratio([item.seconds for item in self.theirs], [item.seconds for item in self.ours])


class Bench:
    """The sides, how much work, how often."""

    def __init__(self, stage: Stage, sizes: Sizes, rounds: int) -> None:
        self.stage = stage
        self.sizes = sizes
        self.rounds = rounds

    def race(self, ours: Entrant, theirs: Entrant) -> Rounds:
        """One round of each that does not count, then as many as asked; who is first changes from round to round."""
        ours(), theirs()
        found = Rounds([], [])
        for number in range(self.rounds):
            turns = [(found.ours, ours), (found.theirs, theirs)]
            for series, entrant in turns if number % 2 == 0 else reversed(turns):
                series.append(entrant())
        return found

    @cache  # noqa: B019 - one bench lives as long as its process
    def fan_out(self, members: int, single: bool = False) -> Rounds:
        """No-op members and a barrier, against raw Celery; measured once for all rows that tell of it."""
        side = self.stage.single if single else self.stage.ours
        raw = self.stage.raw
        return self.race(running(side, flows.fan_out(members)), entrant(raw, partial(raw.app.chord_of, members)))


def entrant(side: Side, work: Work) -> Entrant:
    return partial(side.measured, work)


def running(side: Ours, wf: WorkflowContext) -> Entrant:
    return entrant(side, partial(side.run, wf))


def barrier(bench: Bench, name: str, members: int, least: float) -> list[Row]:
    found = bench.fan_out(members)
    row = Row(
        name,
        f"barrier over {members:,} no-op members",
        "raw Celery",
        found.faster,
        Bar(least, "least"),
        times(found.ours),
        times(found.theirs),
        counted(found.ours, found.theirs, members, "member"),
        units=members,
        ours=found.ours,
        theirs=found.theirs,
    )
    return [row]


def anew(bench: Bench) -> list[Row]:
    """The graph of every other row was uploaded by the round that does not count. This is what it is without that."""
    members, ours, raw = bench.sizes.members, bench.stage.ours, bench.stage.raw

    def built() -> object:
        return ours.run(flows.fan_out(members, f"fan-out {secrets.token_hex(4)}"))

    found = bench.race(entrant(ours, built), entrant(raw, partial(raw.app.chord_of, members)))
    row = Row(
        "barrier-anew",
        f"barrier over {members:,}, the graph built and uploaded in each round",
        "raw Celery",
        found.faster,
        None,
        times(found.ours),
        times(found.theirs),
        counted(found.ours, found.theirs, members, "member"),
        units=members,
        ours=found.ours,
        theirs=found.theirs,
    )
    return [row]


def barriers(bench: Bench, *, canvas: bool) -> list[Row]:
    """Barriers one after the other; the times are those of one barrier."""
    count, width, ours, raw = bench.sizes.barriers, bench.sizes.width, bench.stage.ours, bench.stage.raw
    peer = raw.app.canvas_of_chords if canvas else raw.app.chords_in_turn
    found = bench.race(running(ours, flows.barriers(count, width)), entrant(raw, partial(peer, count, width)))
    against = "raw Celery, one canvas" if canvas else "raw Celery, chord by chord"
    speed = Row(
        "barriers-canvas" if canvas else "barriers-turn",
        f"{count} barriers of {width}, each",
        against,
        found.faster,
        Bar(15 if canvas else 4, "least"),
        times(found.ours, count),
        times(found.theirs, count),
        counted(found.ours, found.theirs, count, "barrier"),
        units=count,
        ours=found.ours,
        theirs=found.theirs,
    )
    if not canvas:
        return [speed]
    share = 100 * ratio([item.bytes for item in found.ours], [item.bytes for item in found.theirs])
    moved = Row(
        "barriers-bytes",
        f"{count} barriers of {width}, bytes in and out of the server",
        against,
        share,
        Bar(2, "most", " %"),
        counts=speed.counts,
        unit=" %",
        units=count,
        ours=found.ours,
        theirs=found.theirs,
    )
    return [speed, moved]


def line(bench: Bench, *, fused: bool) -> list[Row]:
    """A chain; the times are those of one hop."""
    length, raw = bench.sizes.line, bench.stage.raw
    ours = bench.stage.ours if fused else bench.stage.single
    found = bench.race(running(ours, flows.line(length)), entrant(raw, partial(raw.app.line, length)))
    row = Row(
        "chain-fused" if fused else "chain-single",
        f"chain of {length}, {'fused' if fused else 'not fused'}, each hop",
        "raw Celery",
        found.faster,
        Bar(20 if fused else 1.2, "least"),
        times(found.ours, length),
        times(found.theirs, length),
        counted(found.ours, found.theirs, length, "hop"),
        note=lacking(ours),
        units=length,
        ours=found.ours,
        theirs=found.theirs,
    )
    return [row]


def everything(bench: Bench) -> list[Row]:
    """All that watches, against none of it."""
    members, on, off = bench.sizes.members, bench.stage.ours, bench.stage.quiet
    wf = flows.fan_out(members)
    found = bench.race(running(on, wf), running(off, wf))
    more = ratio([item.seconds for item in found.ours], [item.seconds for item in found.theirs])
    row = Row(
        "everything",
        f"barrier over {members:,} with events, heartbeats and monitor",
        "ours without",
        100 * (more - 1),
        Bar(10, "most", " % more"),
        times(found.ours),
        times(found.theirs),
        counted(found.ours, found.theirs, members, "member"),
        note=lacking(off),
        unit=" %",
        units=members,
        ours=found.ours,
        theirs=found.theirs,
    )
    return [row]


def lacking(side: Ours) -> str:
    """A remark about settings that a side was to have and this version does not know."""
    if not side.lacks:
        return ""
    return f"this version has no setting {', '.join(side.lacks)}: {side.name} is what there is without"
