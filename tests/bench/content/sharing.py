"""The figure of values: a large one is made once and read by many."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from graflow_celery import Run
from tests.bench.content import flows
from tests.bench.content.stage import PLACES, WORKERS, Sides
from tests.bench.content.table import Row
from tests.bench.content.tap import amount, moved

READERS = 20
TIMEOUT = 300
#: What a value's blob has at least, compressed as it may be; graphs are smaller.
LARGE = 100_000

#: No two rounds have the same value, which would be in the store already.
_seeds = itertools.count(1)


@dataclass(frozen=True)
class Round:
    seconds: float
    bytes_in: int
    bytes_out: int


def of_values(sides: Sides, rounds: int, say: Callable[[str], None]) -> list[Row]:
    kinds = [kind for kind in flows.KINDS if kind != "array" or find_spec("numpy")]
    if "array" not in kinds:
        say("values: no array, as numpy is not installed here")
    return [_of_kind(sides, kind, rounds, say) for kind in kinds]


def _of_kind(sides: Sides, kind: str, rounds: int, say: Callable[[str], None]) -> Row:
    """Ours, raw by argument, raw by reference, ours, ... as often as asked; then ours once more with the tap on."""
    from tests.bench.content import raw

    works: dict[str, Callable[[int], object]] = {
        "ours": lambda seed: _ours(sides, kind, seed),
        "as argument": lambda seed: raw.as_argument(kind, seed, READERS),
        "by reference": lambda seed: raw.by_reference(kind, seed, READERS),
    }
    found: dict[str, list[Round]] = {name: [] for name in works}
    for number in range(rounds):
        for name, work in works.items():
            found[name].append(_round(sides.ours.server if name == "ours" else sides.raw.server, work))
            say(f"{kind} {number + 1}/{rounds} {name}: {_said(found[name][-1:])}")
    up, down, processes = _counted(sides, kind)
    return Row(
        f"{amount(flows.SIZE)} ({kind}) made once, read by {READERS} members on {WORKERS} workers of {PLACES} places",
        "at most 1 upload and 4 downloads",
        f"{up} upload, {down} downloads for {processes} processes; {_said(found['ours'])}",
        up <= 1 and down <= WORKERS * PLACES,
        f"as argument: {_said(found['as argument'])}; by a reference of the user's: {_said(found['by reference'])}",
        _peer(sides, rounds) if kind == "text" else "its JSON makes a text of it (default=str)" if sides.peer else "",
    )


def _ours(sides: Sides, kind: str, seed: int) -> Run:
    run = flows.sharing(kind, seed, READERS).submit(settings=sides.ours.settings)
    assert run.wait(timeout=TIMEOUT) == "succeeded", run.reason
    return run


def _round(server: object, work: Callable[[int], object]) -> Round:
    with moved(server) as bytes_:
        began = time.perf_counter()
        work(next(_seeds))
        seconds = time.perf_counter() - began
    return Round(seconds, bytes_.bytes_in, bytes_.bytes_out)


def _counted(sides: Sides, kind: str) -> tuple[int, int, int]:
    """Uploads and downloads of the value's blobs, and how many processes the members were in.

    The tap makes the server slow, so nothing is timed.
    """
    with sides.tap(sides.ours, f"{kind} for {READERS} readers") as tap:
        run = _ours(sides, kind, next(_seeds))
    processes = {found[0] for name, found in run.results().items() if name.startswith("r")}
    sent = [item for item in tap.uploads(sides.ours.blobs) if item.size >= LARGE]
    keys = {item.key for item in sent}
    return len(sent), sum(item.key in keys for item in tap.downloads(sides.ours.blobs)), len(processes)


def _peer(sides: Sides, rounds: int) -> str:
    peer = sides.peer
    if peer is None:
        return ""
    found = []
    for _ in range(rounds):
        with moved(peer.server) as bytes_:
            seconds, _ = peer.run("sharing", READERS)
        found.append(Round(seconds, bytes_.bytes_in, bytes_.bytes_out))
    with sides.tap(peer, "sharing") as tap:
        _, served = peer.run("sharing", READERS)
    key = "produce.__result__"
    counts = f"{len(tap.uploads(key))} upload, {len(tap.downloads(key))} downloads"
    wrong = "" if served == READERS else f"; but {READERS - served} of {READERS} members get None for it"
    return f"{counts}; {_said(found)}{wrong}"


def _said(rounds: Sequence[Round]) -> str:
    seconds = [item.seconds for item in rounds]
    coming, going = (statistics.median(getattr(item, name) for item in rounds) for name in ("bytes_in", "bytes_out"))
    spread = f" ({min(seconds):.2f} to {max(seconds):.2f})" if len(seconds) > 1 else ""
    return f"{amount(coming)} in, {amount(going)} out, {statistics.median(seconds):.2f} s{spread}"
