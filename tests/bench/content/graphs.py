"""The figures of graphs: how often, how much of them is uploaded, and with how many round trips."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Mapping, Sequence

from tests.bench.content import flows
from tests.bench.content.stage import Sides
from tests.bench.content.table import Row
from tests.bench.content.tap import Seen, amount, moved
from tests.bench.content.trips import counted

GROUPS, MEMBERS = 100, 2
TASKS = 1000
PROCESSES = 10
ADDED = (250, 500, 1000)
BASES = (10, 1000)
TIMEOUT = 600


def of_groups(sides: Sides) -> Row:
    """A run of many groups on one graph."""
    ours = sides.ours
    wf = flows.groups(secrets.token_hex(4), GROUPS, MEMBERS)
    with sides.tap(ours, "100 groups") as tap, counted(ours.settings.key_prefix) as trips:
        run = wf.submit(settings=ours.settings)
        status = run.wait(timeout=TIMEOUT)
    assert status == "succeeded", run.reason
    sent = tap.uploads(ours.blobs)
    by_workers = len(sent) - run.uploaded_blobs
    return Row(
        f"uploads of graph data in a run of {GROUPS} groups of {MEMBERS} on one graph",
        "1 in all",
        f"{trips['uploads']} by the client ({_said(sent)}), {by_workers} by workers",
        trips["uploads"] == 1 and not by_workers,
        _canvas(sides),
        _saved(sides, "groups"),
    )


def _canvas(sides: Sides) -> str:
    from tests.bench.content import raw

    with sides.tap(sides.raw, f"one canvas of {GROUPS} chords"), moved(sides.raw.server) as bytes_:
        raw.chords(GROUPS, MEMBERS)
    return f"one canvas of {GROUPS} chords: {amount(bytes_.bytes_in)} into the server"


def _saved(sides: Sides, work: str) -> str:
    if sides.peer is None:
        return ""
    with sides.tap(sides.peer, work) as tap:
        sides.peer.run(work, GROUPS)
    return f"{len(tap.uploads(':graph:'))} uploads, {amount(_bytes(tap.uploads(':graph:')))}"


def of_processes(sides: Sides) -> Row:
    """The same script again and again, each time in a process of its own."""
    mark = secrets.token_hex(4)
    counts: list[int] = []
    hashes: set[str] = set()
    for _ in range(PROCESSES):
        with sides.tap(sides.ours, f"{TASKS} tasks") as tap:
            [told] = sides.ours.submitted("groups", mark, "--count", str(TASKS))
        counts.append(len(tap.uploads(sides.ours.blobs)))
        hashes.add(told["hash"])
    later = [counts[number - 1] for number in (2, 3, PROCESSES)]
    return Row(
        f"the same script of {TASKS:,} tasks in a second, third, tenth fresh process: blobs uploaded",
        "0",
        f"{', '.join(map(str, later))} (the first: {counts[0]}; {len(hashes)} graph hash in all {PROCESSES})",
        not any(counts[1:]) and len(hashes) == 1,
        "",
        f"the script of {GROUPS} groups again: {_saved(sides, 'groups')}" if sides.peer else "",
    )


def of_changes(sides: Sides) -> list[Row]:
    """One task of many is changed."""
    return [_changed(sides, kind) for kind in ("by-value", "by-reference")]


def _changed(sides: Sides, kind: str) -> Row:
    mark = secrets.token_hex(4)
    sent: list[list[Seen]] = []
    with tempfile.TemporaryDirectory() as folder:
        for change in ("0", "70000"):
            with sides.tap(sides.ours, f"{TASKS} tasks {kind}") as tap:
                options = ("--count", str(TASKS), "--folder", folder, "--changed", change)
                sides.ours.submitted(kind, mark, *options)
            sent.append(tap.uploads(sides.ours.blobs))
    full, changed = sent
    share = _bytes(changed) / _bytes(full)
    what = "small functions that travel by value" if kind == "by-value" else "functions that workers import"
    return Row(
        f"one task of {TASKS:,} changed ({what})",
        "2 blobs (task, manifest), under 2 % of the bytes of a full upload",
        f"{_said(changed)}: {100 * share:.2f} % of {_said(full)}",
        len(changed) == 2 and share < 0.02,
        "",
        _saved_anew(sides) if kind == "by-value" else "",
    )


def _saved_anew(sides: Sides) -> str:
    if sides.peer is None:
        return ""
    with sides.tap(sides.peer, "changed") as tap:
        sides.peer.run("changed", TASKS)
    full, changed = tap.uploads(":graph:")
    return f"the whole graph: {amount(changed.size)}, {100 * changed.size / full.size:.0f} % of a full upload"


def of_additions(sides: Sides) -> Row:
    """Tasks that are added at run time, one by one."""
    sizes = {base: {count: _added(sides, count, base) for count in ADDED} for base in BASES}
    told = [f"base of {base:,}: {_growth(found)}" for base, found in sizes.items()]
    last = {base: found[ADDED[-1]] / ADDED[-1] for base, found in sizes.items()}
    linear = all(_ratio(found) < 2.2 for found in sizes.values())
    alike = max(last.values()) < 1.1 * min(last.values())
    return Row(
        f"{', '.join(map(str, ADDED))} tasks added at run time one by one: bytes uploaded by workers",
        "grow linearly, whatever the graph's size",
        "; ".join(told),
        linear and alike,
        f"each task sends the next, bytes into the server: {_growth({count: _sent(sides, count) for count in ADDED})}",
        "added tasks stay in the driver's process" if sides.peer else "",
    )


def _added(sides: Sides, count: int, base: int) -> int:
    wf = flows.adding(secrets.token_hex(4), count, base)
    with sides.tap(sides.ours, f"{count} tasks added to {base}") as tap:
        run = wf.submit(settings=sides.ours.settings)
        status = run.wait(timeout=TIMEOUT)
    assert status == "succeeded", run.reason
    return _bytes(tap.uploads(sides.ours.blobs)) - run.uploaded_bytes


def _sent(sides: Sides, count: int) -> int:
    from tests.bench.content import raw

    with moved(sides.raw.server) as bytes_:
        raw.adding(count)
    return bytes_.bytes_in


def of_round_trips(sides: Sides) -> list[Row]:
    """Submits of a graph that the store has."""
    rows = []
    for flow, what in (("groups", f"{TASKS // 10} groups of 10"), ("fan-out", f"one group of {TASKS:,}")):
        mark = secrets.token_hex(4)
        sides.ours.submitted(flow, mark)
        with sides.tap(sides.ours, f"submit of {what}"):
            first, second = (told["trips"] for told in sides.ours.submitted(flow, mark, "--submits", "2"))
        rows.append(
            Row(
                f"submit of an unchanged graph of {TASKS:,} tasks ({what}): round trips of the client",
                "2 for content; 0 in the next submit of that process",
                f"{_trips(first)}; the next: {_trips(second)}",
                first.get("content", 0) <= 2 and not second.get("content", 0),
                _chord_trips(sides) if flow == "fan-out" else "",
            )
        )
    return rows


def _chord_trips(sides: Sides) -> str:
    from tests.bench.content import raw

    with sides.tap(sides.raw, f"chord of {TASKS}"):
        with counted("graflow") as trips:
            sent = raw.sent_chord(TASKS)
        sent.get(timeout=TIMEOUT)
    return f"a chord of {TASKS:,}: {trips.total()}"


def _trips(trips: Mapping[str, int]) -> str:
    """Uploads are among those of content already."""
    named = {"content": 0, "run store": 0, "broker": 0, **trips}
    return ", ".join(f"{name} {count}" for name, count in named.items() if name != "uploads")


def _growth(sizes: Mapping[int, int]) -> str:
    amounts = " / ".join(amount(size) for size in sizes.values())
    return f"{amounts}, twice as many: x {_ratio(sizes):.2f}"


def _ratio(sizes: Mapping[int, int]) -> float:
    """By what the largest number is more than half as many."""
    return sizes[ADDED[-1]] / sizes[ADDED[-1] // 2]


def _said(sent: Sequence[Seen]) -> str:
    return f"{len(sent)} blob{'' if len(sent) == 1 else 's'}, {amount(_bytes(sent))}"


def _bytes(sent: Sequence[Seen]) -> int:
    return sum(item.size for item in sent)
