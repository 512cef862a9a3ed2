"""What the monitor makes of a node that has not ended for a while: it is well, or nobody has it any more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from graflow_celery.core.commands import DispatchNode, OpenGroup, OpenMembers
from graflow_celery.core.place import Place
from graflow_celery.core.plan import NodeSpec
from graflow_celery.core.state import Applied, NodeState
from graflow_celery.engine.holding import Holding
from graflow_celery.engine.lost import Losses
from graflow_celery.engine.oversight import Lease, Ledger, Workforce
from graflow_celery.engine.runner import Engine
from graflow_celery.engine.turnover import Turnover
from graflow_celery.ports import NOTHING, Late, NodeReport, RunRef

#: Seconds after which a node is looked at again that a live worker says it has. From then on its lease vouches for it.
VOUCHED = 60.0
#: Seconds past a time limit after which the monitor ends an attempt that its worker should have ended.
LENIENCE = 2.0


@dataclass(frozen=True, slots=True)
class Patience:
    """In seconds: a worker's beats come every ``interval`` and count for ``timeout``."""

    interval: float
    timeout: float


@dataclass
class _Findings:
    """Of one run.

    Attributes:
        replaced: how many attempts another one took over.
        done: nodes that need no look any more. ``vouched``: those that a live worker has. ``soon``: those of which more
            will be known in a moment.
        queues: where messages are waited for.
    """

    replaced: int = 0
    done: list[str] = field(default_factory=list)
    vouched: list[str] = field(default_factory=list)
    soon: list[str] = field(default_factory=list)
    queues: set[str] = field(default_factory=set)

    def count(self, applied: Applied) -> None:
        self.replaced += not applied.stale


class _Crew:
    """What the workers' last beats say together."""

    def __init__(self, leases: Mapping[str, Lease]) -> None:
        self.holding = Holding({worker: lease.held for worker, lease in leases.items()})
        self.queues = {queue for lease in leases.values() for queue in lease.queues}


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
        self._has: dict[str, Holding] = {}
        self._dead: Mapping[str, str] = {}
        self._crew: _Crew | None = None
        self._left: dict[str, float] = {}
        self._stalled: dict[str, tuple[float, frozenset[str]]] = {}

    def begin(self, late: Sequence[Late], dead: Mapping[str, str] | None = None) -> None:
        """Learns in one step what is to be known of the workers that run what is late.

        ``dead``: workers that were just declared dead, as records name them, and what is known of that.
        """
        self._dead = dead or {}
        nodes = [report for item in late for report in item.nodes.values() if report is not None]
        if nodes:
            self._now = self._clock()
            holders = {report.holder for report in nodes if report.holder}
            self._living = self._workforce.living(holders.difference(self._dead))
            self._has = {worker: Holding({worker: lease.held}) for worker, lease in self._living.items()}
            self._crew = None
            self._left = {}
            self._stalled = {run: told for run, told in self._stalled.items() if self._now - told[0] < VOUCHED}

    def inspect(self, late: Late) -> int:
        """Looks at the late nodes of a run; returns how many were replaced."""
        if not late.nodes:
            return 0
        run, found = late.run, _Findings()
        sent_again = _senders(late)
        open_nodes = self._open(late)
        found.done += [node for node in late.nodes if node not in open_nodes]
        for node, (place, report) in open_nodes.items():
            if node in sent_again:
                continue
            if place.spec.is_group:
                self._group(run, place, report, found)
            elif report.state is NodeState.RUNNING:
                self._running(run, place, report, found)
            else:
                self._queued(run, place, report, found)
        self._ledger.forget(run, found.done)
        self._ledger.ease(run, found.vouched, VOUCHED)
        if found.soon:
            moment = 2 * self._patience.interval
            self._ledger.ease(run, found.soon, moment)
            self._ledger.hurry(run, moment)
        self._tell_stalled(run, found.queues)
        return found.replaced

    def _open(self, late: Late) -> dict[str, tuple[Place, NodeReport]]:
        """Those that can still come to an end: no group around them has."""
        found = {
            node: (Place.of(self._engine.graphs.plan_for(late.run, report.graph), node), report)
            for node, report in late.nodes.items()
            if report is not None and report.state in (NodeState.QUEUED, NodeState.RUNNING)
        }
        names = sorted({scope for place, _ in found.values() for scope in place.scopes})
        reports = zip(names, self._ledger.reports(late.run, names), strict=True)
        closed = {name for name, report in reports if report is not None and report.state.is_final}
        return {node: pair for node, pair in found.items() if not closed.intersection(pair[0].scopes)}

    def _running(self, run: RunRef, place: Place, report: NodeReport, found: _Findings) -> None:
        """An attempt that says it runs: somebody vouches for it, or it is lost, or it is too early to say."""
        lease, age = self._living.get(report.holder), self._now - report.started
        limit = place.spec.options.time_limit
        if lease is None:
            if age > self._patience.timeout or report.holder in self._dead:
                cause = f"{self._dead.get(report.holder) or f'worker {report.worker} is gone'} while it ran this"
                found.count(self._losses.lost(run, place.plan, place.key, report, cause))
        elif not self._has[report.holder].has(run.id, place, report.attempt):
            if age - lease.age > self._patience.interval:
                cause = f"worker {lease.name} lives, and does not run it any more"
                found.count(self._losses.returned(run, place.plan, place.key, report, cause))
        elif limit is None:
            found.vouched.append(place.key)
        elif age > limit + LENIENCE:
            found.count(self._losses.overdue(run, place.plan, place.key, report))

    def _queued(self, run: RunRef, place: Place, report: NodeReport, found: _Findings) -> None:
        """An attempt that waits in its queue, or is held by a worker that is not ready for it, or was lost."""
        queue = self._queue_of(place.spec)
        found.queues.add(queue)
        if not self._has_left(queue, report.started):
            found.soon += [place.key] if self._turnover.is_close(queue) else []
        elif not self._is_held(run, place, report.attempt):
            found.count(self._losses.returned(run, place.plan, place.key, report, _left(queue)))

    def _group(self, run: RunRef, place: Place, report: NodeReport, found: _Findings) -> None:
        """The first members of an open group, whose messages were sent together and which have no records before they
        begin. The group is done when all have."""
        queues = self._first_queues(place)
        left = {queue for queue in queues if self._has_left(queue, report.started)}
        if queues and not left and self._is_counted(run, place):
            found.queues |= queues
            found.soon += [place.key] if any(map(self._turnover.is_close, queues)) else []
            return
        members = self._first_members(run, place)
        if members is None:
            return
        records = zip(members.items(), self._ledger.reports(run, list(members)), strict=True)
        waiting = {member: queue for (member, queue), record in records if record is None}
        held = {member for member in waiting if self._is_held(run, Place.of(place.plan, member), run.first)}
        lost = {member: queue for member, queue in waiting.items() if queue in left and member not in held}
        for member, queue in lost.items():
            found.count(self._losses.returned(run, place.plan, member, None, _left(queue)))
        found.queues.update(waiting.values())
        if waiting.keys() <= lost.keys():
            found.done.append(place.key)
        elif held.issuperset(waiting.keys() - lost.keys()):
            found.vouched.append(place.key)

    def _first_queues(self, place: Place) -> set[str]:
        """Where the first members wait, without a look at each one's key: a group may have a hundred thousand."""
        if place.spec.map is not None:
            return {self._queue_of(place.spec)}
        return {self._queue_of(spec) for entry in place.spec.entries if not (spec := place.plan[entry]).is_group}

    def _is_counted(self, run: RunRef, place: Place) -> bool:
        """Whether it is known how many first members there are; of a mapped task it may not be yet, or be none."""
        return place.spec.map is None or self._ledger.input(run, place.key) not in (NOTHING, 0)

    def _first_members(self, run: RunRef, place: Place) -> dict[str, str] | None:
        """The queue of each; None if they are not known yet."""
        spec = place.spec
        if spec.map is None:
            tasks = {entry: entry_spec for entry in spec.entries if not (entry_spec := place.plan[entry]).is_group}
            return {place.inside(entry).key: self._queue_of(entry_spec) for entry, entry_spec in tasks.items()}
        count = self._ledger.input(run, place.key)
        if count is NOTHING:
            return None
        prefix, suffix = place.members
        at_once = count if spec.map.max_parallel is None else min(count, spec.map.max_parallel)
        return {f"{prefix}{index}{suffix}": self._queue_of(spec) for index in range(at_once)}

    def _has_left(self, queue: str, since: float) -> bool:
        if queue not in self._left:
            self._left[queue] = self._turnover.up_to(queue, self._now)
            # What was received by then is in beats that are read from now on, and need not be in those read before.
            self._crew = None
        return self._left[queue] > since + self._patience.interval

    def _queue_of(self, spec: NodeSpec) -> str:
        return spec.options.queue or self._queue

    def _is_held(self, run: RunRef, place: Place, attempt: int) -> bool:
        return self._everybody().holding.has(run.id, place, attempt)

    def _everybody(self) -> _Crew:
        if self._crew is None:
            everybody = self._workforce.living()
            self._crew = _Crew({worker: lease for worker, lease in everybody.items() if worker not in self._dead})
        return self._crew

    def _tell_stalled(self, run: RunRef, queues: set[str]) -> None:
        """Writes down, once, that nobody consumes what a run waits for; and again if somebody did meanwhile."""
        _, before = self._stalled.pop(run.id, (0.0, frozenset()))
        if not queues | before:
            return
        unserved = frozenset((queues | before) - self._everybody().queues)
        if unserved:
            self._stalled[run.id] = (self._now, unserved)
        if unserved - before:
            names = ", ".join(sorted(unserved))
            self._ledger.note(run, "run_stalled", reason=f"no live worker consumes the queue {names}")


def _senders(late: Late) -> set[str]:
    """The nodes whose messages, or whose members' messages, are just sent again."""
    return {
        command.node if isinstance(command, DispatchNode) else command.group
        for command in late.commands
        if isinstance(command, DispatchNode | OpenGroup | OpenMembers)
    }


def _left(queue: str) -> str:
    return f"its message left the queue '{queue}', and no live worker has it"
