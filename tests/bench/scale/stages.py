"""What is done with one graph, stage by stage; each is measured in a process of its own."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator

from graflow_celery import Run, Settings, WorkflowContext
from graflow_celery.celery_backend.compiler import compile_commands
from graflow_celery.celery_backend.explaining import explain
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.cli import inspecting
from graflow_celery.codec.manifest import load_graph, pack_graph
from graflow_celery.codec.values import ValueCodec
from graflow_celery.core.commands import OpenGroup
from graflow_celery.core.events import BarrierReached, NodeFailed, NodeSucceeded
from graflow_celery.core.expr import Executable
from graflow_celery.core.picture import to_svg
from graflow_celery.core.plan import Plan
from graflow_celery.engine.checkpoint import CheckpointMetadata, checkpoint_of, pack
from graflow_celery.engine.timing import timing
from graflow_celery.flower_pages.reading import Filter, Reader
from graflow_celery.ports import Attempt, Outcome, RunRef
from graflow_celery.redis_backend.client import connect
from graflow_celery.runs import client_runtime
from graflow_celery.terminal.live import LogLines
from graflow_celery.terminal.progress import ProgressModel
from graflow_celery.terminal.screen import Screen
from tests.bench.scale.shapes import SHAPES, WRITTEN
from tests.bench.scale.stopwatch import Stopwatch


def measured(shape: str, size: int, settings: Settings | None) -> Stopwatch:
    """All stages of one shape and size; without a server those that need none."""
    watch = Stopwatch() if settings is None else Stopwatch(_server_of(settings))
    wf = watch.time("build", lambda: SHAPES[shape](size))
    if wf is None:
        return watch
    plan = watch.time("lower", wf.plan)
    watch.time("mermaid, dot, text", lambda: (wf.to_mermaid(), wf.to_dot(), str(wf.graph)))
    if plan is None:
        return watch
    watch.time("picture", lambda: to_svg(plan))
    _content(watch, wf, plan)
    if settings is not None and shape not in WRITTEN:
        _stored(watch, wf, plan, settings)
    return watch


def _server_of(settings: Settings) -> Callable[[], float]:
    client = connect(settings.redis_url)

    def cpu() -> float:
        told = client.info("cpu")
        return float(told["used_cpu_user"] + told["used_cpu_sys"])

    return cpu


def _content(watch: Stopwatch, wf: WorkflowContext, plan: Plan) -> None:
    codec = ValueCodec(("json", "pickle"))
    tasks = {name: node for name in plan.nodes if isinstance(node := wf.graph.get_node(name), Executable)}
    packed = watch.time("pack", lambda: pack_graph(plan, tasks, codec))
    if packed is None:
        return
    blobs = watch.time("seal", lambda: {name: made() for name, made in packed.missing(packed.names).items()})
    if blobs is not None:
        watch.time("load", lambda: load_graph(packed.hash, lambda name, _: codec.open(blobs[name], name=name), codec))


def _stored(watch: Stopwatch, wf: WorkflowContext, plan: Plan, settings: Settings) -> None:
    runtime = client_runtime(settings)
    run = watch.time("submit, first", lambda: wf.submit(settings=settings, max_steps=10**9))
    again = watch.time("submit, again", lambda: wf.submit(settings=settings, max_steps=10**9))
    if run is None or again is None:
        return
    again.cancel("not needed")
    groups = [OpenGroup(node.id) for node in plan.nodes.values() if node.is_group]
    if groups:
        watch.time("compile its groups", lambda: [compile_commands(run._run, plan, [item]) for item in groups])
    watch.time("run, without workers", lambda: driven(runtime, run, plan))
    _read(watch, runtime, run, plan)
    _kept(watch, runtime, run, plan)


def order(plan: Plan) -> Iterator[tuple[str, bool]]:
    """The nodes in an order in which they can end, and whether each is a group, which ends after its members."""
    waits = {node.id: node.needs for node in plan.nodes.values()}
    ready = [plan.start]
    while ready:
        name = ready.pop()
        spec = plan[name]
        if spec.is_group:
            yield from ((member, False) for member in spec.exits)
        yield name, spec.is_group
        for after in spec.successors:
            waits[after] -= 1
            if not waits[after]:
                ready.append(after)


def driven(runtime: Runtime, run: Run, plan: Plan) -> None:
    """Ends every node of a run as a worker does; the last one fails. Its messages stay where they are."""
    store, decide, nodes = runtime.store, runtime.engine.scheduler.decide, list(order(plan))
    for name, is_group in nodes[:-1]:
        if is_group:
            store.commit(run._run, decide(plan, BarrierReached(name, None)))
            continue
        store.begin(Attempt(run._run, plan, name, 1, "bench"), (), ())
        store.commit(run._run, decide(plan, NodeSucceeded(name, 1)), Outcome(1))
    last = nodes[-1][0]
    store.commit(run._run, decide(plan, NodeFailed(last, 1, "ValueError: no")), Outcome(error=ValueError("no")))


def _read(watch: Stopwatch, runtime: Runtime, run: Run, plan: Plan) -> None:
    watch.time("Run.results()", run.results)
    watch.time("Run.nodes()", run.nodes)
    records = watch.time("Run.events()", lambda: list(run.events()))
    watch.time("show", lambda: _quiet(lambda: inspecting.show.callback(run.id, False)))  # type: ignore[misc]
    watch.time("explain", lambda: explain(runtime, run._run, 20))
    watch.time("timing", lambda: timing(records or (), plan.nodes))

    def followed() -> ProgressModel:
        model = ProgressModel(plan)
        lines = LogLines(model, "t", lambda _: None)
        for record in records or ():
            lines(record, model.feed(record))
        return model

    model = watch.time("watch", followed)
    if model is not None:
        watch.time("watch: one picture", lambda: Screen(model, "t")._draw())
    reader = Reader(lambda: runtime)
    watch.time("flower: graph", lambda: reader.graph(run.id))
    watch.time("flower: runs", lambda: reader.runs(Filter()))
    watch.time("flower: changes", lambda: _pages(reader, run.id))
    watch.time("flower: node", lambda: reader.node(run.id, plan.start, known=lambda _: False))


def _pages(reader: Reader, run_id: str) -> None:
    cursor, more = "", True
    while more:
        page = reader.changes(run_id, cursor)
        cursor, more = page["cursor"], page["more"]


def _kept(watch: Stopwatch, runtime: Runtime, run: Run, plan: Plan) -> None:
    checkpoints = runtime.checkpoints.of(run._run, plan)
    snapshot = watch.time("snapshot", checkpoints.snapshot)
    if snapshot is not None:
        made = CheckpointMetadata("c", run.id, "2026-01-01T00:00:00+00:00", 1, plan.start, checkpoints.backend, {})
        watch.time(
            "checkpoint",
            lambda: pack(checkpoint_of(made, plan.name, snapshot, checkpoints.graphs(runtime.codec)), runtime.codec),
        )
        target = RunRef(f"{run.id}x", run.graph_hash)
        watch.time("restore", lambda: runtime.snapshots.restore(target, snapshot, {"workflow": plan.name}))
    watch.time("retry: dry run", lambda: run.retry_failed(dry_run=True))
    watch.time("retry", run.retry_failed)
    run.cancel("measured")
    watch.time("gc", lambda: runtime.garbage.clean(0, True))


def _quiet(work: Callable[[], object]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        work()
