"""Starting runs on Celery workers, and waiting for them; a run itself is in `runs`."""

from __future__ import annotations

import contextlib
import logging
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graflow_celery import aio
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.celery_backend.showing import shown, shown_by
from graflow_celery.celery_backend.source import Source
from graflow_celery.celery_backend.submitting import check_run_id, found, start
from graflow_celery.codec.manifest import PackedGraph, pack_graph
from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.events import CancelRequested
from graflow_celery.core.expr import Executable
from graflow_celery.core.lower import lower
from graflow_celery.core.plan import Plan
from graflow_celery.core.policy import SchedulingPolicy
from graflow_celery.core.state import Emission, RunStatus
from graflow_celery.core.task import Ship
from graflow_celery.engine.checkpoint import Checkpoint, continued
from graflow_celery.engine.feedback import Handler
from graflow_celery.engine.feedback_desk import consulted
from graflow_celery.engine.llm import LLMRegistry
from graflow_celery.errors import (
    GraflowError,
    GraphCompilationError,
    NoWorkerError,
    RunTimeoutError,
    SerializationError,
    UnavailableError,
)
from graflow_celery.memory_backend.callers import Callers
from graflow_celery.ports import RunRef
from graflow_celery.redis_backend.client import patience
from graflow_celery.runs import Progress, Run, client_runtime
from graflow_celery.settings import Settings
from graflow_celery.threads import call

MAX_STEPS = 10_000
#: Seconds for which a submit waits for a server that does not answer its first question: enough for a second try, over
#: a new connection.
SUBMIT_PATIENCE = 0.05

logger = logging.getLogger(__name__)


def submit(
    definition: WorkflowDefinition,
    *,
    start_node: str | None = None,
    max_steps: int = MAX_STEPS,
    timeout: float | None = None,
    initial_channel: Mapping[str, Any] | None = None,
    run_id: str | None = None,
    settings: Settings | None = None,
    require_workers: bool = False,
    llm: LLMRegistry | None = None,
    scheduling: SchedulingPolicy | None = None,
    checkpoint_every: int = 0,
    checkpoint_to: str | os.PathLike[str] | None = None,
    ship: Ship = "auto",
    tracer: Any = None,
) -> Run:
    """Uploads what the store lacks of a workflow and starts a run of it. See `WorkflowContext.submit`."""
    began = time.time()
    if run_id is not None:
        check_run_id(run_id)
    plan = lower(definition.graph, definition.name, start_node, scheduling)
    runtime = client_runtime(settings, ask=False)
    tasks = {name: node for name in plan.nodes if isinstance(node := definition.graph.get_node(name), Executable)}
    try:
        packed = pack_graph(plan, tasks, runtime.codec, llm.factories() if llm is not None else None, ship=ship)
        reference = runtime.refer(new_run_id() if run_id is None else run_id, packed.hash)
        if run_id is not None:
            with patience(SUBMIT_PATIENCE):
                there = found(runtime, reference, plan)
            if there is not None:
                run = Run(runtime, there)
                run._source = Source.of_graph(runtime, packed, initial_channel or {})
                return run
        _check_content(runtime, packed, initial_channel or {})
        run = Run(runtime, reference)
        run._source = Source.of_graph(runtime, packed, initial_channel or {})
        with patience(SUBMIT_PATIENCE), runtime.client.pipeline(transaction=False) as pipe:
            unserved = runtime.liveness.ask(pipe, plan.queues(runtime.settings.queue))
            learned = runtime.durations.ask(pipe, packed.kinds.values())
            upload = runtime.content.ask(pipe, packed)
            replies = iter(pipe.execute())
        _check_workers(unserved(replies), require_workers)
        learned(replies)
        run.uploaded_blobs, run.uploaded_bytes = upload(replies)
    except SerializationError as error:
        raise GraphCompilationError(str(error)) from error
    traced = runtime.traces.describe(tracer)
    runtime.traces.know(reference, traced)
    wished = runtime.wished(reference, checkpoint_every, _path(checkpoint_to))
    details = {"max_steps": max_steps, **wished, **traced}
    run._run = start(runtime, reference, plan, packed, timeout, initial_channel or {}, details)
    runtime.traces.submitted(run._run, plan, began)
    return run


def resume(
    checkpoint: Checkpoint,
    *,
    settings: Settings | None = None,
    require_workers: bool = False,
    checkpoint_every: int = 0,
    checkpoint_to: str | os.PathLike[str] | None = None,
) -> Run:
    """Goes on from a checkpoint as a new run. See `ResumedContext.submit`."""
    runtime = client_runtime(settings)
    run = Run(runtime, runtime.refer(new_run_id(), checkpoint.graph))
    absent = runtime.content.absent(list(checkpoint.blobs))
    run._source = Source.of_checkpoint(runtime, checkpoint)
    run.uploaded_blobs = runtime.content.put({name: checkpoint.blobs[name] for name in absent})
    run.uploaded_bytes = sum(len(checkpoint.blobs[name]) for name in absent)
    plan, reference = run.plan, run._run
    _check_workers(runtime.liveness.unserved(plan.queues(runtime.settings.queue)), require_workers)
    snapshot, emissions = continued(checkpoint, run.id, lambda graph: runtime.plan_for(reference, graph))
    traced = runtime.traces.describe(None, resumed_from=checkpoint.metadata.session_id)
    runtime.traces.know(reference, traced)
    details = {
        **_described(plan),
        **runtime.wished(reference, checkpoint_every, _path(checkpoint_to)),
        **traced,
        "resumed_from": checkpoint.metadata.session_id,
    }
    runtime.snapshots.restore(reference, snapshot, details)
    _send(runtime, reference, plan, emissions)
    return run


def finish(
    run: Run,
    timeout: float | None = None,
    progress: Progress | bool | None = None,
    feedback: Handler | None = None,
    *,
    to_end: bool = False,
) -> Any:
    """Waits for a run that this process answers for and returns its last result; None if it waits for a person.

    ``feedback`` is told what its tasks ask. On a timeout or Ctrl-C the run is cancelled. Raises what :meth:`Run.result`
    and :meth:`Run.wait` raise.
    """
    if progress is True:
        with shown(run._runtime, run._run) as feed:
            return finish(run, timeout, feed, feedback, to_end=to_end)
    tell = progress or None
    if feedback is not None:
        tell = consulted(feedback, run.records, run.answer, Callers().call, tell)
    try:
        status = run.wait(timeout, tell, to_end=to_end)
    except RunTimeoutError as error:
        run.cancel(f"it did not end within {error.timeout:g} s")
        raise
    except KeyboardInterrupt:
        run.cancel("interrupted")
        raise
    if status is RunStatus.WAITING:
        asked = ", ".join(request.feedback_id for request in run.feedback() if request.is_open)
        logger.warning("run %s waits for a person: graflow-celery feedback answer %s ...", run.id, asked)
        return None
    return run.result()


async def execute_async(
    submit: Callable[[], Run],
    timeout: float | None = None,
    progress: Progress | bool | None = None,
    feedback: Handler | None = None,
) -> tuple[Any, Run]:
    """Submits a run, in a thread, and does what :func:`finish` does without blocking the event loop."""
    run = await aio.submitted(submit)
    with contextlib.ExitStack() as showing:
        if progress is True:
            display = await call(run.display)
            progress = showing.enter_context(shown_by(display, run._run)).feed
        tell = progress or None
        if feedback is not None:
            tell = consulted(feedback, run.records, run.answer, Callers().call, tell)
        return await aio.finish(run._runtime, run, timeout, tell), run


def recent_runs(count: int = 20, settings: Settings | None = None) -> list[Run]:
    """The runs started last that the store still has, the newest first."""
    runtime = client_runtime(settings)
    return _found(runtime, runtime.store.recent(count))


def active_runs(settings: Settings | None = None) -> list[Run]:
    """The runs that have not ended, the oldest first."""
    runtime = client_runtime(settings)
    return _found(runtime, runtime.store.active())


def _found(runtime: Runtime, run_ids: Sequence[str]) -> list[Run]:
    runs: list[Run] = []
    for run_id in run_ids:
        try:
            runs.append(Run(runtime, RunRef(run_id, runtime.store.details(run_id)["graph"])))
        except GraflowError:
            continue
    return runs


def new_run_id() -> str:
    """Sixteen hex digits: eleven of the time in milliseconds, so that ids sort by age, five at random."""
    return f"{time.time_ns() // 1_000_000:011x}{uuid.uuid4().hex[:5]}"


def _send(runtime: Runtime, run: RunRef, plan: Plan, emissions: Sequence[Emission]) -> None:
    """What a new run begins with; timers are left to its outbox."""
    try:
        runtime.engine.carry_out(run, plan, [item.command for item in emissions if not item.delay])
    except UnavailableError as error:
        try:
            runtime.engine.end(run, CancelRequested("it could not be sent to the broker"))
        except UnavailableError:
            error.add_note(f"Run {run.id} is in the store, and may go on when the server takes it: graflow-celery show")
        raise


def _described(plan: Plan) -> dict[str, str | int]:
    return {"workflow": plan.name, "tasks": len(plan.task_ids)}


def _path(to: str | os.PathLike[str] | None) -> str | None:
    return None if to is None else os.fspath(to)


def _check_workers(unserved: Sequence[str], required: bool) -> None:
    if unserved and required:
        raise NoWorkerError(unserved)
    if unserved:
        logger.warning("%s The run is kept until one does.", NoWorkerError(unserved))


def _check_content(runtime: Runtime, packed: PackedGraph, channel: Mapping[str, Any]) -> None:
    """Raises SerializationError for what workers here may not read, before anything is stored.

    Where pickle is off that goes for content, too, that another client has stored, which allows it.
    """
    for key, value in channel.items():
        runtime.values.check_entry(value, f"channel key '{key}'")
    if not runtime.codec.allows_pickle:
        for made in packed.parts.values():
            made()
