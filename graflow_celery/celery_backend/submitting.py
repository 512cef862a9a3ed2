"""Starting a run, once: its id is an idempotency key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import redis

from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.codec.manifest import PackedGraph
from graflow_celery.core.commands import CloseBarrier
from graflow_celery.core.events import CancelRequested, RunStarted
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import RunStatus
from graflow_celery.errors import (
    ConfigError,
    RunExistsError,
    RunNotFoundError,
    SerializationError,
    StoreUnavailableError,
)
from graflow_celery.ports import RunRef

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")


def check_run_id(run_id: str) -> None:
    """Raises ConfigError for an id that no run can have."""
    if not isinstance(run_id, str) or not RUN_ID.fullmatch(run_id):
        raise ConfigError(
            f"run_id={run_id!r}: a run's id is made of letters, digits and _ . : - , begins with a letter or a digit, "
            f"and has 128 characters at most."
        )


def start(
    runtime: Runtime,
    run: RunRef,
    plan: Plan,
    packed: PackedGraph,
    timeout: float | None,
    channel: Mapping[str, Any],
    details: Mapping[str, str | int],
) -> RunRef:
    """Makes the run, with what its channel holds, and sends what it begins with; or finds the one that is there.

    ``packed`` is its graph, which was seen stored. If the store turns out to lack it, it is uploaded again before
    anything is sent.

    Returns: the run of that id.

    Raises:
        RunExistsError: a run of another graph has that id.
        StoreUnavailableError: the broker does not answer; the run is cancelled.
    """
    started = runtime.engine.scheduler.decide(plan, RunStarted(timeout))
    described = {"workflow": plan.name, "tasks": len(plan.task_ids), **details}
    if timeout is not None:
        described["timeout"] = str(timeout)
    applied = runtime.store.create(run, started, described, channel)
    if applied.stale:
        runtime.content.ensure(packed)
        return found(runtime, run, plan) or run
    try:
        runtime.content.ensure(packed)
        runtime.engine.carry_out(run, plan, [item.command for item in applied.emissions if not item.delay])
    except (StoreUnavailableError, SerializationError, redis.RedisError):
        runtime.engine.end(run, CancelRequested("it could not be sent to the broker"))
        raise
    return run


def found(runtime: Runtime, run: RunRef, plan: Plan) -> RunRef | None:
    """The run that has this one's id already. What its client made and did not send is sent.

    Raises:
        RunExistsError: it is of another graph.
    """
    try:
        details = runtime.store.details(run.id)
    except RunNotFoundError:
        return None
    there = RunRef(run.id, details["graph"])
    if there.hash != run.hash:
        raise RunExistsError(run.id, plan.name, details.get("workflow", ""))
    if not RunStatus(details["status"]).is_terminal:
        runtime.retries.note_active(run.id)
        if not int(details.get("steps", 0)):
            runtime.engine.carry_out(there, runtime.plan_for(there), _unsent(runtime, there))
    return there


def _unsent(runtime: Runtime, run: RunRef) -> list[Any]:
    """What a run that nobody began has still to send. Timers come when they are due."""
    soon = runtime.settings.dispatch_grace
    return [item for item in runtime.store.unsent(run, soon) if not isinstance(item, CloseBarrier)]
