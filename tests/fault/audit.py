"""Was everything done, once, and rightly? What the chaos command asks of the store when all has come to rest."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from graflow_celery import Run
from graflow_celery.errors import GraflowError, RunNotFoundError
from graflow_celery.ports import EventRecord
from graflow_celery.redis_backend.client import Client
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.settings import Settings
from tests.fault.chaos_client import run_id
from tests.fault.chaos_faults import Fault
from tests.fault.chaos_workflows import ENDINGS, Expected, endings, expected

FINAL = frozenset({"node_succeeded", "node_failed", "node_skipped"})
#: After these the same activation may start again, as its next attempt.
HANDED_ON = frozenset({"node_lost", "node_returned", "node_retried", "node_iterated", "node_waiting"})
GONE = frozenset({"node_lost", "node_returned"})
CLOSED = frozenset({"group_succeeded", "group_failed"})
RUN_ENDS = frozenset({"run_succeeded", "run_failed", "run_cancelled", "run_terminated"})
#: What lives on by design: see the tables in redis_backend/keys.py and docs/operations.md. The rest is Celery's own.
PERMANENT = ("_kombu.", "unacked")


@dataclass
class Stall:
    """An attempt that was lost or given back, and how long it took until the next one began."""

    run: str
    node: str
    event: str
    worker: str
    lost_at: float
    started_at: float
    reason: str


@dataclass
class Audited:
    """What was found of one run. ``wrong`` is empty if all is well."""

    run: str
    number: int
    events: list[EventRecord] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    stalls: list[Stall] = field(default_factory=list)

    def log(self) -> str:
        began = float(self.events[0]["at"]) if self.events else 0.0
        return "\n".join(_shown(event, began) for event in self.events)


def audit_run(seed: int, number: int, settings: Settings) -> Audited:
    """Holds a run against what the local backend makes of the same workflow."""
    found = Audited(run_id(seed, number), number)
    wanted = expected(seed, number)
    try:
        run = Run.get(found.run, settings)
        found.events = list(run.events())
        details = run.details()
    except RunNotFoundError:
        found.wrong.append("the store does not know it")
        return found
    status = details["status"]
    if status != wanted.status:
        found.wrong.append(f"it is {status} ({details.get('reason', '')}) and should be {wanted.status}")
    found.wrong += history(found.events, wanted)
    if status == wanted.status and status in ("succeeded", "terminated"):
        try:
            result = run.result()
        except GraflowError as error:
            result = error
        if result != wanted.result:
            found.wrong.append(f"its result is {result!r} and should be {wanted.result!r}")
    found.stalls = stalls(found.run, found.events)
    return found


def history(events: Sequence[EventRecord], wanted: Expected) -> list[str]:
    """What is wrong with a run's events."""
    wrong: list[str] = []
    ends = [index for index, event in enumerate(events) if event["event"] in RUN_ENDS]
    if len(ends) != 1:
        wrong.append(f"it ended {len(ends)} times")
    elif any(event["event"] != "carried_out" for event in events[ends[0] + 1 :]):
        wrong.append(f"events after its end: {[event['event'] for event in events[ends[0] + 1 :]]}")
    counted = Counter((str(event["event"]), str(event.get("node", "")), event.get("attempt")) for event in events)
    back = given_back(events)
    for (kind, node, attempt), times in counted.items():
        once = 1 + (back[node, attempt] if kind in ("node_started", "node_queued") else 0)
        if kind in ("node_started", "node_queued", "node_lost", "node_returned", *ENDINGS) and times > once:
            wrong.append(f"{times} times {kind} of attempt {attempt} of {node}")
    for name, kinds in (("final outcomes", FINAL), ("closings", CLOSED), ("openings", {"group_opened"})):
        per_node = Counter(str(event["node"]) for event in events if event["event"] in kinds)
        wrong += [f"{times} {name} of {node}" for node, times in per_node.items() if times > 1]
    wrong += order(events)
    if wanted.endings is not None:
        had = endings(events)
        if had != wanted.endings:
            wrong.append(f"too much: {dict(had - wanted.endings)}, too little: {dict(wanted.endings - had)}")
    return wrong


def given_back(events: Iterable[EventRecord]) -> Counter[tuple[str, Any]]:
    """How often each attempt had leave to begin, did not, and was queued again: others of its message took long."""
    back: Counter[tuple[str, Any]] = Counter()
    going: dict[str, Any] = {}
    for event in events:
        node, attempt = str(event.get("node", "")), event.get("attempt")
        if event["event"] == "node_started":
            going[node] = attempt
        elif going.get(node, "") == attempt:
            back[node, attempt] += event["event"] == "node_queued"
            del going[node]
    return back


def order(events: Iterable[EventRecord]) -> list[str]:
    """Attempts of an activation follow each other, and none starts before the one before it is known to be over."""
    wrong: list[str] = []
    going: dict[str, int] = {}
    ended: set[str] = set()
    for event in events:
        kind, node, attempt = str(event["event"]), str(event.get("node", "")), int(event.get("attempt", 0))
        if kind == "node_queued" and going.get(node) == attempt:  # given back
            del going[node]
        if kind == "node_started":
            if node in going:
                wrong.append(f"attempt {attempt} of {node} started while attempt {going[node]} went on")
            if node in ended:
                wrong.append(f"attempt {attempt} of {node} started after its final outcome")
            going[node] = attempt
        elif kind in HANDED_ON or kind in FINAL:
            begun = going.pop(node, None)
            if begun is not None and begun != attempt:
                wrong.append(f"{kind} of attempt {attempt} of {node} while attempt {begun} ran")
            if node in ended:
                wrong.append(f"{kind} of {node} after its final outcome")
            if kind in FINAL:
                ended.add(node)
    return wrong


def stalls(run: str, events: Iterable[EventRecord]) -> list[Stall]:
    """The attempts that were replaced and began again, with who had them."""
    found: list[Stall] = []
    holders: dict[str, str] = {}
    gone: dict[str, EventRecord] = {}
    for event in events:
        kind, node = str(event["event"]), str(event.get("node", ""))
        if kind in GONE:
            gone.setdefault(node, event)
        elif kind == "node_started":
            if (before := gone.pop(node, None)) is not None:
                reason, worker = str(before.get("reason", "")), holders.get(node, "")
                worker = next((word for word in reason.split() if "@" in word), worker)
                times = (float(before["at"]), float(event["at"]))
                found.append(Stall(run, node, str(before["event"]), worker.split("#")[0], *times, reason))
            holders[node] = str(event.get("worker", ""))
    return found


def lingering(client: Client, keys: Keys, queue: str) -> tuple[list[str], dict[str, int]]:
    """The keys that never expire and should, and how many messages there are that belong to nothing."""
    wrong: list[str] = []
    for key in client.scan_iter(count=1000):
        name = key.decode()
        known = name in (keys.runs, keys.active, queue) or name.startswith((*PERMANENT, f"{queue}\x06"))
        if not known and client.ttl(key) == -1:
            wrong.append(f"key {name} never expires")
    active = [name.decode() for name in client.zrange(keys.active, 0, -1)]
    messages = {
        "queued": int(client.llen(queue)),
        "unacknowledged": int(client.hlen("unacked")),
        "runs in P:active": len(active),
    }
    return wrong, messages


@dataclass
class Row:
    """What one class of fault brought about."""

    done: int = 0
    lost: int = 0
    returned: int = 0
    #: Seconds from the fault, and from the event that tells of it, until the next attempt began.
    since_fault: list[float] = field(default_factory=list)
    since_event: list[float] = field(default_factory=list)


def by_fault(faults: Sequence[Fault], found: Iterable[Stall]) -> dict[str, Row]:
    """Puts each loss down to the last fault that hit its worker before; to "server" or "?" if none did."""
    rows: dict[str, Row] = defaultdict(Row)
    for fault in faults:
        rows[fault.kind].done += 1
    for stall in found:
        causes = [fault for fault in faults if fault.at <= stall.lost_at + 0.1 and _hits(fault, stall)]
        row = rows[causes[-1].kind if causes else "?"]
        if stall.event == "node_lost":
            row.lost += 1
        else:
            row.returned += 1
        row.since_event.append(stall.started_at - stall.lost_at)
        if causes:
            row.since_fault.append(stall.started_at - causes[-1].at)
    return rows


def spread(seconds: Sequence[float]) -> str:
    """Median, 95th percentile and longest."""
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    late = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    return f"{statistics.median(ordered):.2f} / {late:.2f} / {ordered[-1]:.2f}"


def _hits(fault: Fault, stall: Stall) -> bool:
    return stall.worker.partition("@")[0] == fault.target if stall.worker else fault.target == "server"


def _shown(event: EventRecord, began: float) -> str:
    rest: dict[str, Any] = {name: value for name, value in event.items() if name not in ("at", "event")}
    return f"  {float(event['at']) - began:8.3f}  {event['event']:<16} " + " ".join(f"{k}={v}" for k, v in rest.items())
