"""What a process needs to take part in distributed runs: connections, stores and the engine."""

from __future__ import annotations

import logging
import os
import random
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from weakref import WeakValueDictionary

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from graflow_celery import failpoints
from graflow_celery.celery_backend import exposed
from graflow_celery.celery_backend.checkpoints import Wish, WorkerCheckpoints
from graflow_celery.celery_backend.code_check import CodeCheck
from graflow_celery.celery_backend.dividing import Dividing
from graflow_celery.celery_backend.publisher import CeleryExecutor
from graflow_celery.celery_backend.recent import Recent
from graflow_celery.celery_backend.revoking import revoking
from graflow_celery.celery_backend.sharing import blob_counts, shared_content
from graflow_celery.celery_backend.traces import RUNS_KEPT, RunTracers, told
from graflow_celery.checkpointing import STORE, codec_of
from graflow_celery.codec.manifest import CodeReference, LoadedGraph, PackedGraph, load_graph, pack_graph
from graflow_celery.codec.references import check, check_tag, signed, tag_of
from graflow_celery.core.activation import item_of, node_of
from graflow_celery.core.commands import Command
from graflow_celery.core.extend import Extension
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import NodeState, RunStatus
from graflow_celery.engine.context import ExecutionContext
from graflow_celery.engine.known import Knowledge
from graflow_celery.engine.llm import LLMRegistry
from graflow_celery.engine.lost import Losses
from graflow_celery.engine.node import NodeCode
from graflow_celery.engine.runner import Engine
from graflow_celery.engine.stored import StoredCode
from graflow_celery.errors import BlobRejectedError, RunNotFoundError
from graflow_celery.ports import Held, NodeReport, RunRef
from graflow_celery.redis_backend.channel import RedisChannel
from graflow_celery.redis_backend.client import Scripts, connect, reported
from graflow_celery.redis_backend.content_store import ContentStore
from graflow_celery.redis_backend.durations import Durations
from graflow_celery.redis_backend.events import EventReader
from graflow_celery.redis_backend.garbage import Garbage
from graflow_celery.redis_backend.holdings import Holdings
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.lifetimes import Lifetimes
from graflow_celery.redis_backend.liveness import Liveness
from graflow_celery.redis_backend.retrying import RedisRetries
from graflow_celery.redis_backend.run_store import RedisRunStore
from graflow_celery.redis_backend.snapshots import RedisSnapshots
from graflow_celery.redis_backend.values import ValueStore
from graflow_celery.settings import Settings
from graflow_celery.tracing.following import Told

logger = logging.getLogger(__name__)

#: The control command that workers obey; see `stopping`.
STOP_STALE = "graflow_stop_stale"
GRAPHS_KEPT = 64
#: Of all graphs together that are kept, besides the newest: a node is about a kilobyte.
NODES_KEPT = 20_000
FUNCTIONS_KEPT = 4096


class Runtime:
    """One per process and app. Nothing connects before it is used; usable from many threads."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.keys = Keys(settings.key_prefix)
        self.client = connect(settings.redis_url)
        self.scripts = Scripts(self.client)
        self.codec = codec_of(settings)
        cache, shared, counts = settings.worker_cache_bytes, shared_content(app), blob_counts(app)
        self.content = ContentStore(self.client, self.keys, self.codec, settings.run_ttl, cache, shared, counts)
        self.values = ValueStore(self.codec, self.content, settings.value_threshold)
        patience = 2 * settings.heartbeat_timeout
        lifetimes = Lifetimes(settings.run_ttl, settings.result_ttl, settings.dispatch_grace, patience)
        self.holdings = Holdings(self.client, self.scripts, self.keys, self.content.ttl, settings.result_ttl)
        store, liveness, executor = _exposed() if failpoints.ON else (RedisRunStore, Liveness, CeleryExecutor)
        events = settings.events == "on"
        self.store = store(self.client, self.scripts, self.keys, self.values, lifetimes, self.holdings, events)
        self.liveness = liveness(self.client, self.scripts, self.keys, settings.heartbeat_timeout)
        self.snapshots = RedisSnapshots(self.client, self.keys, self.values, lifetimes, self.holdings)
        self.retries = RedisRetries(self.client, self.scripts, self.keys, lifetimes, self.sign)
        self.checkpoints = WorkerCheckpoints(self.snapshots, self.content, settings, self._wish)
        lost = None if counts is None else partial(counts.add, "spans_dropped")
        self.traces = RunTracers(settings.tracing, lambda run: self._fields(run)[3], self._told, lost)
        self.durations = Durations(self.client, self.keys)
        self.dividing = Dividing(
            self.durations, self.kind, self.liveness.processes, settings.batch, settings.max_losses
        )
        self.engine = Engine(self.store, executor(app, self._acknowledge, self.traces.headers, self.dividing), self)
        self.engine.committed = revoking(app, self.checkpoints.after_commit)
        self.engine.tracer = self.traces
        self.losses = Losses(self.engine, self.store.reports, settings.max_losses, random.random, self._stop_stale)
        #: The graphs of the runs that this client submitted and still has.
        self.packed: WeakValueDictionary[str, PackedGraph] = WeakValueDictionary()
        self._graphs: Recent[str, LoadedGraph] = Recent(GRAPHS_KEPT, lambda graph: len(graph.code), NODES_KEPT)
        self._functions: OrderedDict[tuple[str, str], NodeCode] = OrderedDict()
        self.knowledge = Knowledge()
        self._kinds: Recent[str, Mapping[str, str]] = Recent(GRAPHS_KEPT)
        self._llm: OrderedDict[str, LLMRegistry] = OrderedDict()
        self._run_fields: Recent[str, tuple[int, str, str, str]] = Recent(RUNS_KEPT)
        self._lock = threading.Lock()

    @cached_property
    def where(self) -> str:
        """How errors of this process name it."""
        return f"{os.uname().nodename}:{os.getpid()}"

    @cached_property
    def stored_code(self) -> StoredCode:
        differs = None if self.code_check.mode == "ignore" else self.code_check.differs
        return StoredCode(self.content.get, self.codec, f"worker {self.where}", differs)

    @cached_property
    def code_check(self) -> CodeCheck:
        return CodeCheck(self.settings.code_mismatch, f"worker {self.where}", self.store.announce)

    @cached_property
    def garbage(self) -> Garbage:
        return Garbage(self.client, self.scripts, self.keys, self.content, self.holdings)

    def _acknowledge(self, run: RunRef, commands: Sequence[Command]) -> None:
        with reported(self.settings.redis_url):
            self.store.acknowledge(run, commands)

    def _wish(self, run: RunRef) -> Wish:
        """Raises BlobRejectedError where a secret is set that did not sign where checkpoints go."""
        every, to, tag, _ = self._fields(run)
        if to:
            check_tag(tag, run, "checkpoints", to, self.codec, what=f"where checkpoints of run {run.id} go")
        return Wish(every, to or STORE)

    def _fields(self, run: RunRef) -> tuple[int, str, str, str]:
        """What a run was started with; see ``RedisRunStore.wish``. Asked once for each run."""
        found = self._run_fields.get(run.id)
        if found is None:
            found = self.store.wish(run)
            self._run_fields.put(run.id, found)
        return found

    def _told(self, run: RunRef) -> Told:
        """What is to be told of a run that has ended."""
        events = EventReader(self.client, self.keys.run(run.id).events).history()
        return told(run, self.store, self.plan_for, events)

    def wished(self, run: RunRef, every: int, to: str | None) -> dict[str, str | int]:
        """What a run's own fields say of its checkpoints."""
        wish: dict[str, str | int] = {"checkpoint_every": every} if every else {}
        if to is None:
            return wish
        return {**wish, "checkpoint_to": to, "checkpoint_tag": tag_of(run, "checkpoints", to, self.codec)}

    def lose(self, held: Held, holder: str, cause: str, *, at_fault: bool) -> None:
        """Reports that the process of an attempt died, and has the monitor look what else of the run is late.

        ``at_fault``: the attempt is what it ran; otherwise it had leave for it alone.
        """
        if held.members is not None or not at_fault:
            # Where nothing had begun, loading the code may be what kills: each member is counted by itself from now on.
            self.losses.left(held.run, held, holder, cause, blameless=not at_fault, together=not at_fault)
            self.store.hurry(held.run)
            return
        plan = self.plan_for(held.run, held.added)
        [report] = self.store.reports(held.run, [held.node])
        report = report or NodeReport(NodeState.QUEUED, held.run.first, "", 0.0, 0.0, 0)
        if report.attempt == held.attempt and report.holder == holder:
            self.losses.lost(held.run, plan, held.node, report, f"{cause} while it ran")
        elif report.attempt == held.attempt and report.state is NodeState.QUEUED:
            # The process had its message. A loss counts here too, or code that cannot be loaded kills for ever.
            self.losses.lost(held.run, plan, held.node, report, f"{cause} before it began")
        self.store.hurry(held.run)

    def give_back(self, held: Held, holder: str, cause: str) -> None:
        """Reports that attempts were stopped, or will not be begun here, through no fault of their own."""
        if held.members is not None:
            self.losses.left(held.run, held, holder, cause, blameless=True)
            return
        [report] = self.store.reports(held.run, [held.node])
        begun = "" if report is None else report.holder
        if held.attempt == (held.run.first if report is None else report.attempt) and begun == (
            holder if held.running else ""
        ):
            self.losses.returned(held.run, self.plan_for(held.run, held.added), held.node, report, cause)

    def is_wanted(self, held: Held, holder: str) -> bool:
        """Whether an attempt that ``holder`` has is still waited for: it is current, and nothing around it ended."""
        try:
            if RunStatus(self.store.details(held.run.id)["status"]).is_terminal:
                return False
        except RunNotFoundError:
            return False
        scopes = Place.of(self.plan_for(held.run, held.added), held.node).scopes
        report, *around = self.store.reports(held.run, [held.node, *scopes])
        if any(scope is not None and scope.state.is_final for scope in around):
            return False
        if report is None:
            return held.attempt == held.run.first
        return report.attempt == held.attempt and not report.state.is_final and report.holder in ("", holder)

    def _stop_stale(self, run: RunRef) -> None:
        self.ask_to_stop([run.id])

    def ask_to_stop(self, run_ids: Sequence[str], worker: str | None = None) -> None:
        """Asks all workers, or one by its node name, to end what they run of some runs and is not wanted any more."""
        to = None if worker is None else [worker]
        try:
            self.app.control.broadcast(STOP_STALE, arguments={"runs": list(run_ids)}, destination=to)
        except (OperationalError, OSError) as error:
            logger.warning("workers could not be asked to stop what is not wanted any more: %s", error)

    def depth(self, queue: str) -> int | None:
        """How many messages wait in a queue of the broker; None if it does not say."""
        try:
            with self.app.connection_or_acquire() as connection:
                try:
                    with connection.channel() as channel:
                        return int(channel.queue_declare(queue, passive=True).message_count)
                except connection.channel_errors:  # there is no such queue
                    return 0
        except (OperationalError, OSError, redis.RedisError) as error:
            logger.warning("the broker does not say how many messages wait in '%s': %s", queue, error)
            return None

    def channel(self, run: RunRef | str) -> RedisChannel:
        """The channel of a run, which holds its large values; by its id: of one that was not retried."""
        run = run if isinstance(run, RunRef) else RunRef(run, "")
        key, values = self.keys.run(run.id).channel, self.values.held_by(run)
        return RedisChannel(self.client, self.scripts, key, values, self.settings.run_ttl)

    def context(self, run: RunRef, plan: Plan) -> ExecutionContext:
        """What the tasks of a run see of it."""
        channel, checkpoints = self.channel(run), self.checkpoints.of(run, plan)
        return ExecutionContext(run, plan, self.store, channel, llm=self.llm(run.graph), checkpoints=checkpoints)

    def graph(self, name: str) -> LoadedGraph:
        """A graph by its hash, from the cache or the content store; ``HASH~3``: as a retried run sees it.

        Raises:
            BlobMissingError, BlobRejectedError: see there.
        """
        found = self._graphs.get(name)
        if found is not None:
            self.content.count("memory")
            return found
        loaded = self._retried(RunRef("", name)) or self._stored(name)
        self._graphs.put(name, loaded)
        return loaded

    def _stored(self, name: str) -> LoadedGraph:
        loaded = load_graph(name, self.content.get, self.codec, self.content.get_all)
        if not loaded.base:
            return loaded
        return replace(loaded, plan=self.graph(loaded.base).plan.extended(name, loaded.plan.nodes))

    def _retried(self, run: RunRef) -> LoadedGraph | None:
        if run.version == run.hash:
            return None
        loaded = self.graph(run.hash)
        return replace(loaded, plan=replace(loaded.plan, first=run.first))

    def refer(self, run_id: str, graph: str) -> RunRef:
        """The run of a graph, signed where there is a secret."""
        return self.sign(RunRef(run_id, graph))

    def sign(self, run: RunRef) -> RunRef:
        return signed(run, self.codec)

    def is_of(self, run: RunRef) -> bool:
        """Whether the store says that the run is of that graph: then its reference is not a message's alone."""
        try:
            return self.store.details(run.id)["graph"] == run.graph
        except RunNotFoundError:
            return False

    def plan_for(self, run: RunRef, graph: str = "") -> Plan:
        """The plan of the run's workflow, or of it with added tasks.

        Raises:
            BlobMissingError: the graph is not in the store.
            BlobRejectedError: it fails a check, nobody with the secret said that the run is of it, or the added tasks
                belong to another workflow.
        """
        check(run, self.codec)
        if not graph:
            return self.graph(run.version).plan
        added = self.graph(run.version.replace(run.hash, graph))
        if added.base != run.hash:
            raise BlobRejectedError(f"Graph {graph} adds nothing to graph {run.hash} of run {run.id}.")
        return added.plan

    def add(self, run: RunRef, plan: Plan, extension: Extension) -> Plan:
        """Uploads tasks that an attempt added: their functions and a small manifest. Raises SerializationError."""
        packed = pack_graph(extension.plan, extension.tasks, self.codec, base=run.hash)
        with self.client.pipeline(transaction=False) as pipe:
            self.holdings.add_graph(pipe, run, packed.hash)
            # Seen or not, in a round trip that is due anyway: if the store has lost it, nobody else can bring it back.
            upload = self.content.ask(pipe, packed, anew=True)
            upload(iter(pipe.execute()[2:]))
        return plan.extended(packed.hash, extension.plan.nodes)

    def code(self, graph: str, activation: str) -> NodeCode:
        """The function and bound values of a node of a graph.

        Raises:
            CodeNotFoundError, CodeMismatchError: a module cannot be imported here, or has other code.
            BlobMissingError, BlobRejectedError: see there.
        """
        graph = RunRef("", graph).hash
        node, reference = self._reference(graph, activation)
        if reference is None:
            return NodeCode(_point)
        key = (graph, node)
        with self._lock:
            if key in self._functions:
                self._functions.move_to_end(key)
                self.content.count("memory")
                return self._functions[key]
        loaded = self.stored_code.node(reference, node)
        with self._lock:
            self._functions[key] = loaded
            while len(self._functions) > FUNCTIONS_KEPT:
                self._functions.popitem(last=False)
        return loaded

    def _reference(self, graph: str, activation: str) -> tuple[str, CodeReference | None]:
        """The task of an activation, by the id that the graph has it under, and where its code is."""
        known = self.graph(graph).code
        node = node_of(activation)
        item = item_of(node)
        if node not in known and item is not None:
            node = item[0]
        return node, known.get(node)

    def kind(self, run: RunRef, plan: Plan, activation: str) -> str:
        """The function of a node, by its blob's name: what nodes have in common that take about as long."""
        node = node_of(activation)
        kinds = self._kinds_of(plan.graph_of(node) or run.hash)
        if node not in kinds and (item := item_of(node)) is not None:
            node = item[0]
        return kinds.get(node, "")

    def _kinds_of(self, graph: str) -> Mapping[str, str]:
        found = self._kinds.get(graph)
        if found is None:
            packed = self.packed.get(graph)
            if packed is not None:
                return packed.kinds
            found = {node: reference.function for node, reference in self.graph(graph).code.items()}
            self._kinds.put(graph, found)
        return found

    def wants_checkpoints(self, run: RunRef) -> bool:
        """Whether the run asks for checkpoints while it goes on."""
        return self._fields(run)[0] > 0

    def tell_of_code(self, run: RunRef, graph: str, activation: str, worker: str) -> None:
        """Tells a run that the code of a node, which :meth:`code` loaded, is not that of its client, if it is not."""
        if self.code_check.found_some:
            node, reference = self._reference(RunRef("", graph).hash, activation)
            if reference is not None:
                self.code_check.tell(run, reference.function, node, worker)

    def llm(self, graph: str) -> LLMRegistry:
        """The LLM clients and agents of a graph: one registry in this process for all of its runs."""
        graph = RunRef("", graph).hash
        sent = self.graph(graph).factories
        with self._lock:
            if graph not in self._llm:
                self._llm[graph] = self.stored_code.llm(sent, threading.RLock())
            self._llm.move_to_end(graph)
            while len(self._llm) > GRAPHS_KEPT:
                self._llm.popitem(last=False)
            return self._llm[graph]


def _exposed() -> tuple[type[RedisRunStore], type[Liveness], type[CeleryExecutor]]:
    return exposed.ExposedStore, exposed.ExposedLiveness, exposed.ExposedExecutor


def _point() -> None:
    """What a task without a function does."""
