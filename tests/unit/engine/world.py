"""A run in memory with the engine around it, a ledger and a workforce that are plain data, and a clock that stands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graflow_celery.core.commands import Command, DispatchNode
from graflow_celery.core.events import Event, RunStarted
from graflow_celery.core.expr import Executable
from graflow_celery.core.extend import Extension, extend
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.core.scheduler import Scheduler
from graflow_celery.core.state import Applied, NodeRecord, NodeState, RunStatus
from graflow_celery.engine.inspection import Inspection, Patience
from graflow_celery.engine.lost import Losses
from graflow_celery.engine.monitor import Monitor
from graflow_celery.engine.runner import Engine
from graflow_celery.engine.turnover import Turnover
from graflow_celery.errors import BlobMissingError
from graflow_celery.memory_backend.channel import MemoryChannel
from graflow_celery.memory_backend.run_store import MemoryRunStore
from graflow_celery.ports import Attempt, Death, Held, Late, Members, NodeReport, Outcome, RunRef

RUN = RunRef("run", "graph")
NOW = 1000.0
QUEUE = "default"
MAX_LOSSES = 3


@dataclass(frozen=True)
class Lease:
    """See :class:`graflow_celery.engine.oversight.Lease`."""

    name: str
    held: tuple[Held, ...] = ()
    queues: tuple[str, ...] = (QUEUE,)
    age: float = 0.5


class Outbox:
    """An executor that sends nothing, and remembers what it was to send."""

    def __init__(self) -> None:
        self.sent: list[tuple[Command, float]] = []
        self.shared: list[Members] = []

    def send(self, run: RunRef, plan: Plan, commands: Sequence[Command], delay: float = 0.0) -> None:
        self.sent += [(command, delay) for command in commands]

    def share(self, run: RunRef, plan: Plan, members: Members) -> None:
        self.shared.append(members)


class Plans:
    """The graphs of the run; those that are ``gone`` cannot be had."""

    def __init__(self, plan: Plan) -> None:
        self.known = {"": plan}
        self.gone = False

    def plan_for(self, run: RunRef, graph: str) -> Plan:
        if self.gone:
            raise BlobMissingError("graph", "the graph of the run")
        return self.known[graph]

    def add(self, run: RunRef, plan: Plan, extension: Extension) -> Plan:
        raise NotImplementedError


@dataclass
class Ledger:
    """See :class:`graflow_celery.engine.oversight.Ledger`: what is late is what a test says."""

    store: MemoryRunStore
    items: list[Late] = field(default_factory=list)
    next_look: float | None = None
    since: dict[str, float] = field(default_factory=dict)
    sweeps: list[bool] = field(default_factory=list)
    eased: dict[str, float] = field(default_factory=dict)
    forgotten: list[str] = field(default_factory=list)
    hurried: list[float] = field(default_factory=list)
    begs: bool = False
    missed: list[str] = field(default_factory=list)
    notes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def late(self, *, sweep: bool = False) -> Iterable[Late]:
        self.sweeps.append(sweep)
        found, self.items = self.items, []
        return found

    def reports(self, run: RunRef, nodes: Sequence[str]) -> list[NodeReport | None]:
        return [self.report(node) for node in nodes]

    def report(self, node: str) -> NodeReport | None:
        record = self.store.state.nodes.get(node)
        return None if record is None else self._report(node, record)

    def _report(self, node: str, record: NodeRecord) -> NodeReport:
        return NodeReport(
            record.state,
            record.attempt,
            record.worker.partition("#")[0],
            self.since.get(node, 0.0),
            0.0,
            record.losses,
            record.retries,
            record.cycle,
            record.graph,
            record.worker,
        )

    def input(self, run: RunRef, node: str) -> Any:
        return self.store.input(run, node)

    def hurry(self, run: RunRef, seconds: float = 0.0) -> None:
        self.hurried.append(seconds)

    def ease(self, run: RunRef, nodes: Sequence[str], seconds: float) -> None:
        self.eased |= dict.fromkeys(nodes, seconds)

    def forget(self, run: RunRef, nodes: Sequence[str]) -> None:
        self.forgotten += nodes

    def note(self, run: RunRef, event: str, **fields: str | int) -> None:
        self.notes.append((event, fields))

    def begged(self, run: RunRef, error: BlobMissingError) -> bool:
        self.missed.append(error.digest)
        return self.begs


@dataclass
class Workforce:
    """See :class:`graflow_celery.engine.oversight.Workforce`."""

    leases: dict[str, Lease] = field(default_factory=dict)
    dead: list[Death] = field(default_factory=list)
    beating: set[str] = field(default_factory=set)
    buried: list[str] = field(default_factory=list)
    leader: str | None = None
    counts: Counter[str] = field(default_factory=Counter)
    next_expiry: float | None = None

    def lead(self, name: str, seconds: float) -> bool:
        self.leader = self.leader or name
        return self.leader == name

    def deaths(self) -> list[Death]:
        return list(self.dead)

    def bury(self, death: Death) -> bool:
        if death.worker in self.beating:
            return False
        self.buried.append(death.worker)
        self.dead.remove(death)
        self.leases.pop(death.worker, None)
        return True

    def living(self, workers: Iterable[str] | None = None) -> Mapping[str, Lease]:
        return {name: lease for name, lease in self.leases.items() if workers is None or name in workers}

    def received(self, queues: Sequence[str]) -> Mapping[str, int]:
        return {queue: self.counts[queue] for queue in queues}

    def oldest_beat(self) -> float | None:
        return max((lease.age for lease in self.leases.values()), default=None)


class World:
    """One run of ``plan``, started."""

    def __init__(self, plan: Plan) -> None:
        self.now = NOW
        self.plan = plan
        self.channel = MemoryChannel()
        self.store = MemoryRunStore(self.channel, lambda: self.now)
        self.plans = Plans(plan)
        self.outbox = Outbox()
        self.engine = Engine(self.store, self.outbox, self.plans)
        self.ledger = Ledger(self.store)
        self.workforce = Workforce()
        self.depths: dict[str, int | None] = {}
        self.stopped: list[str] = []
        self.losses = Losses(
            self.engine, self.ledger.reports, MAX_LOSSES, lambda: 0.5, lambda run: self.stopped.append(run.id)
        )
        self.turnover = Turnover(lambda queue: self.depths.get(queue, 0), self.workforce)
        parts = (self.engine, self.ledger, self.workforce, self.losses)
        self.inspection = Inspection(*parts, self.turnover, QUEUE, Patience(1.0, 3.0), lambda: self.now)
        self.monitor = Monitor(*parts, self.inspection, "me", 1.5)
        self.tell(RunStarted())

    def tell(self, event: Event, outcome: Outcome | None = None, graph: str = "") -> Applied:
        return self.engine.deliver(RUN, self.plans.known[graph], event, outcome)

    def begin(self, node: str, worker: str = "w#1", attempt: int = 1, at: float = 0.0, graph: str = "") -> None:
        plan = self.plans.known[graph]
        scopes = Place.of(plan, node).scopes
        assert self.store.begin(Attempt(RUN, plan, node, attempt, worker), scopes, []) is not None
        self.ledger.since[node] = at

    def add(self, node: str, *added: Executable) -> tuple[str, Extension]:
        """Attempt 1 of ``node`` adds tasks; the graph's name and what was added."""
        made = extend(Place.of(self.plan, node), 1, added, leaves=False)
        self.plans.known[made.key] = self.plan.extended(made.key, made.plan.nodes)
        return made.key, made

    def worker(self, name: str = "w#1", *held: str, queues: tuple[str, ...] = (QUEUE,), age: float = 0.5) -> None:
        """A worker's last beat: it holds attempt 1 of ``held``, or the attempt after a colon."""
        pairs = [item.partition(":") for item in held]
        items = tuple(Held(RUN, node, int(attempt or 1)) for node, _, attempt in pairs)
        self.workforce.leases[name] = Lease(name.partition("#")[0], items, queues, age)

    def dies(self, name: str, *held: str, reported: bool = False, pid: int = 7) -> Death:
        """A worker is dead; ``held`` as in :meth:`worker`."""
        self.worker(name, *held)
        lease = self.workforce.leases[name]
        death = Death(name, lease.name, pid, 4.2, reported, lease.held, "mark")
        self.workforce.dead.append(death)
        return death

    def late(self, *nodes: str, commands: Sequence[Command] = ()) -> Late:
        return Late(RUN, commands, {node: self.ledger.report(node) for node in nodes})

    def inspect(self, *nodes: str, commands: Sequence[Command] = ()) -> int:
        found = self.late(*nodes, commands=commands)
        self.inspection.begin([found])
        return self.inspection.inspect(found)

    def turn_over(self, *queues: str) -> None:
        """All that was in the queues until now is received. Time goes on, and every worker beats."""
        for queue in queues or (QUEUE,):
            self.turnover.up_to(queue, self.now)
        self.now += 10.0

    def record(self, node: str) -> NodeRecord | None:
        return self.store.state.nodes.get(node)

    def attempt(self, node: str) -> tuple[NodeState, int] | None:
        """How a node stands, and its attempt."""
        record = self.record(node)
        return None if record is None else (record.state, record.attempt)

    def events(self, name: str) -> list[tuple[str, str]]:
        """The events of a name: of which node, and why."""
        return [(item["node"], item.get("reason", "")) for item in self.store.events if item["event"] == name]

    def sent(self, node: str) -> list[int]:
        """Which attempts of a node were to be sent."""
        commands = [command for command, _ in self.outbox.sent if isinstance(command, DispatchNode)]
        return [command.attempt for command in commands if command.node == node]

    @property
    def status(self) -> RunStatus:
        return self.store.state.status

    def decide(self, event: Event) -> Applied:
        """An event of which the executor hears nothing."""
        return self.store.commit(RUN, Scheduler().decide(self.plan, event))
