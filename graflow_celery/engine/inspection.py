"""What the monitor makes of a node that has not ended for a while: it is well, or nobody has it any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from graflow_celery.core.commands import DispatchNode
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import NodeState
from graflow_celery.engine.lost import Losses
from graflow_celery.engine.oversight import Lease, Ledger, Workforce
from graflow_celery.engine.runner import Engine
from graflow_celery.engine.turnover import Turnover
from graflow_celery.ports import NOTHING, Late, NodeReport, RunRef

#: Seconds after which a node is looked at again that a live worker says it runs. From then on its lease vouches for it.
VOUCHED = 60.0
#: Seconds past a time limit after which the monitor ends an attempt that its worker should have ended.
LENIENCE = 2.0


@dataclass(frozen=True, slots=True)
class Patience:
    """In seconds: a worker's beats come every ``interval`` and count for ``timeout``."""

    interval: float
    timeout: float


class Inspection:
    """Looks at nodes that did not end in time, some runs at a time: ``begin(late)``, then ``inspect`` each.

    Args:
        turnover: tells which messages have left their queue.
        queue: of tasks that name none.
        now: seconds since the epoch by the store's clock.
    """

    def __init__(
        self,
        engine: Engine,
        ledger: Ledger,
        workforce: Workforce,
        losses: Losses,
        turnover: Turnover,
        queue: str,
        patience: Patience,
        now: Callable[[], float],
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._workforce = workforce
        self._losses = losses
        self._turnover = turnover
        self._queue = queue
        self._patience = patience
        self._clock = now
        self._now = 0.0
        self._living: Mapping[str, Lease] = {}
        self._workers: Sequence[Lease] | None = None
        self._stalled: dict[str, frozenset[str]] = {}

    def begin(self, late: Sequence[Late]) -> None:
        """Learns in one step what is to be known of the workers that run what is late."""
        nodes = [report for item in late for report in item.nodes.values() if report is not None]
        if nodes:
            self._now = self._clock()
            self._living = self._workforce.living(report.holder for report in nodes if report.holder)
            self._workers = None

    def inspect(self, late: Late) -> int:
        """Looks at the late nodes of a run; returns how many were replaced."""
        if not late.nodes:
            return 0
        sent_again = {command.node for command in late.commands if isinstance(command, DispatchNode)}
        open_nodes = self._open(late)
        done = [node for node in late.nodes if node not in open_nodes]
        vouched: list[str] = []
        unserved: set[str] = set()
        replaced = 0
        for node, report in open_nodes.items():
            place = Place.of(self._engine.graphs.plan_for(late.run, report.graph), node)
            if place.spec.is_group:
                count = self._group(late.run, place, report)
                if count is not None:
                    done.append(node)
                    replaced += count
            elif report.state is NodeState.RUNNING:
                verdict = self._running(late.run, place, report)
                replaced += verdict == "replaced"
                if verdict == "vouched":
                    vouched.append(node)
            elif node not in sent_again:
                unserved |= self._unserved(place)
                replaced += self._queued(late.run, place, report)
        self._ledger.forget(late.run, done)
        self._ledger.ease(late.run, vouched, VOUCHED)
        self._tell_stalled(late.run, frozenset(unserved))
        return replaced

    def _open(self, late: Late) -> dict[str, NodeReport]:
        """Those that can still come to an end: no group around them has."""
        found = {
            node: report
            for node, report in late.nodes.items()
            if report is not None and report.state in (NodeState.QUEUED, NodeState.RUNNING)
        }
        scopes = {
            node: Place.of(self._engine.graphs.plan_for(late.run, report.graph), node).scopes
            for node, report in found.items()
        }
        names = sorted({scope for around in scopes.values() for scope in around})
        reports = zip(names, self._ledger.reports(late.run, names), strict=True)
        closed = {name for name, report in reports if report is not None and report.state.is_final}
        return {node: report for node, report in found.items() if not closed.intersection(scopes[node])}

    def _running(self, run: RunRef, place: Place, report: NodeReport) -> str:
        """An attempt that says it runs: 'vouched' for by its worker, 'replaced', or '' while it is too early to say."""
        lease, age = self._living.get(report.holder), self._now - report.started
        limit = place.spec.options.time_limit
        if limit is not None and age > limit + LENIENCE:
            return _word(self._losses.overdue(run, place.plan, place.key, report).stale)
        if lease is None:
            if age <= self._patience.timeout:
                return ""
            cause = f"worker {report.worker} is gone"
            return _word(self._losses.lost(run, place.plan, place.key, report, f"{cause} while it ran").stale)
        if _holds(lease, run, place.key, report.attempt):
            return "vouched" if limit is None else ""
        if age - lease.age <= self._patience.interval:
            return ""
        cause = f"worker {lease.name} lives, and does not run it any more"
        return _word(self._losses.returned(run, place.plan, place.key, report, cause).stale)

    def _queued(self, run: RunRef, place: Place, report: NodeReport) -> int:
        """An attempt that waits in its queue, or is held by a worker that is not ready for it, or was lost."""
        if not self._has_left(place, report.started) or self._is_held(run, place.key, report.attempt):
            return 0
        cause = f"its message left the queue '{self._queue_of(place)}', and no live worker has it"
        return not self._losses.returned(run, place.plan, place.key, report, cause).stale

    def _group(self, run: RunRef, place: Place, report: NodeReport) -> int | None:
        """The first members of an open group, whose messages were sent together. None if it is too early to say."""
        members = self._first_members(run, place)
        if members is None or not self._has_left(place, report.started):
            return None
        replaced = 0
        for member, found in zip(members, self._ledger.reports(run, members), strict=True):
            waits = found is None or (found.state is NodeState.QUEUED and found.attempt == 1)
            if waits and not self._is_held(run, member, 1):
                cause = f"its message left the queue '{self._queue_of(place)}', and no live worker has it"
                replaced += not self._losses.returned(run, place.plan, member, found, cause).stale
        return replaced

    def _first_members(self, run: RunRef, place: Place) -> list[str] | None:
        spec = place.spec
        if spec.map is None:
            return [place.inside(entry).key for entry in spec.entries if not place.plan[entry].is_group]
        count = self._ledger.input(run, place.key)
        if count is NOTHING:
            return None
        prefix, suffix = place.members
        at_once = count if spec.map.max_parallel is None else min(count, spec.map.max_parallel)
        return [f"{prefix}{index}{suffix}" for index in range(at_once)]

    def _has_left(self, place: Place, since: float) -> bool:
        return self._turnover.up_to(self._queue_of(place), self._now) > since + self._patience.interval

    def _queue_of(self, place: Place) -> str:
        return _queue(place.plan, place) or self._queue

    def _is_held(self, run: RunRef, node: str, attempt: int) -> bool:
        return any(_holds(lease, run, node, attempt) for lease in self._alive())

    def _alive(self) -> Sequence[Lease]:
        if self._workers is None:
            self._workers = self._workforce.workers()
        return self._workers

    def _unserved(self, place: Place) -> set[str]:
        queue = self._queue_of(place)
        return set() if any(queue in lease.queues for lease in self._alive()) else {queue}

    def _tell_stalled(self, run: RunRef, queues: frozenset[str]) -> None:
        """Writes down, once, that nobody consumes what a run waits for; and that somebody does again."""
        before = self._stalled.pop(run.id, frozenset())
        if queues:
            self._stalled[run.id] = queues
        if queues - before:
            names = ", ".join(sorted(queues))
            self._ledger.note(run, "run_stalled", reason=f"no live worker consumes the queue {names}")


def _holds(lease: Lease, run: RunRef, node: str, attempt: int) -> bool:
    return any((item.run.id, item.node, item.attempt) == (run.id, node, attempt) for item in lease.held)


def _queue(plan: Plan, place: Place) -> str | None:
    """The queue of a task, or of the first task of a group."""
    spec = place.spec
    while spec.entries:
        spec = plan[spec.entries[0]]
    return spec.options.queue


def _word(stale: bool) -> str:
    return "" if stale else "replaced"
