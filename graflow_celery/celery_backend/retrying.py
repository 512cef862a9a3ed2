"""Retrying a run that has ended: what failed or was cut off, and everything after it, in the same run."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import redis

from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.codec.manifest import blob_names
from graflow_celery.core.activation import node_of
from graflow_celery.core.plan import Plan
from graflow_celery.core.rerun import Homes, Rerun, activations, rerun
from graflow_celery.core.state import NodeState, RunStatus
from graflow_celery.errors import BlobMissingError, RetryRefusedError, UnavailableError, UnknownNodeError
from graflow_celery.redis_backend.retrying import StoredRun

logger = logging.getLogger(__name__)
NODES_TOLD = 20


@dataclass(frozen=True, slots=True)
class RetryReport:
    """What a retry runs again, and what it keeps: tasks, by the keys under which ``Run.nodes()`` and events name them.

    Attributes:
        again: those that run again, and those after them, as far as they will be reached.
        kept: those that succeeded and do not run again.
        dry_run: nothing was changed.
    """

    run_id: str
    again: tuple[str, ...]
    kept: tuple[str, ...]
    dry_run: bool = False


def retry(runtime: Runtime, run_id: str, from_nodes: Sequence[str] = (), dry_run: bool = False) -> RetryReport:
    """Lets a run go on that has ended. See `Run.retry_failed`."""
    stored = runtime.retries.read(run_id)
    if not stored.state.status.is_terminal:
        runtime.retries.note_active(run_id)
        raise RetryRefusedError(
            run_id, f"it is {stored.state.status} and goes on. End it first: graflow-celery cancel {run_id}"
        )
    _check_content(runtime, stored)
    chosen = [key for node in from_nodes for key in _chosen(runtime, stored, node)]
    _check_terminated(stored, chosen)
    made = rerun(stored.state, lambda graph: runtime.plan_for(stored.run, graph), chosen, stored.timeout)
    if not made.emissions:
        raise RetryRefusedError(
            run_id,
            f"it {stored.state.status}, and nothing of it failed or was cut off. Say where to begin: --from NODE",
        )
    report = _report(runtime.plan_for(stored.run), stored, made, dry_run)
    if not dry_run:
        _go_on(runtime, stored, made, report, from_nodes)
    return report


def _go_on(runtime: Runtime, stored: StoredRun, made: Rerun, report: RetryReport, from_nodes: Sequence[str]) -> None:
    state = stored.state
    said: dict[str, str | int] = {
        "reason": f"it {_ended(state.status)}{f': {state.reason}' if state.reason else ''}",
        "count": len(report.again),
        "nodes": ", ".join(report.again[:NODES_TOLD]) + (", ..." if len(report.again) > NODES_TOLD else ""),
        "from": ", ".join(from_nodes),
    }
    run = runtime.retries.go_on(stored, made, said)
    if run is None:
        raise RetryRefusedError(
            report.run_id, f"somebody else did it at the same time. See: graflow-celery show {report.run_id}"
        )
    try:
        now = [item.command for item in made.emissions if not item.delay]
        runtime.engine.carry_out(run, runtime.plan_for(run), now)
    except (UnavailableError, redis.RedisError) as error:
        logger.warning("run %s goes on, but what begins could not be sent; the monitor sends it: %s", run.id, error)


def _check_content(runtime: Runtime, stored: StoredRun) -> None:
    """Renews everything that the run needs from the content store. Raises BlobMissingError if something is gone."""
    graphs = {record.graph for record in stored.state.nodes.values() if record.graph}
    for graph in (stored.run.hash, *sorted(graphs)):
        what = f"a function or graph of workflow '{stored.meta.get(b'workflow', b'').decode()}'"
        names = blob_names(graph, runtime.content.get, runtime.codec, runtime.content.get_all)
        for absent in runtime.content.absent(names):
            raise BlobMissingError(absent, what)
    if stored.large:
        runtime.content.absent(list(stored.large))


def _chosen(runtime: Runtime, stored: StoredRun, node: str) -> tuple[str, ...]:
    """Raises UnknownNodeError or RetryRefusedError if nothing of that name ran."""
    found = activations(stored.state, lambda graph: runtime.plan_for(stored.run, graph), node)
    if found:
        return found
    plan = runtime.plan_for(stored.run)
    if node not in plan:
        raise UnknownNodeError(node, tuple(plan.nodes))
    raise RetryRefusedError(stored.run.id, f"'{node}' did not run in it, so it cannot run again. Name one that ran")


def _check_terminated(stored: StoredRun, chosen: Sequence[str]) -> None:
    state = stored.state
    if state.status is RunStatus.TERMINATED and state.failed_node and not chosen:
        raise RetryRefusedError(
            stored.run.id,
            f"its task '{state.failed_node}' ended it with terminate_workflow, so it is done. "
            f"Say where to begin: --from NODE",
        )


def _report(plan: Plan, stored: StoredRun, made: Rerun, dry_run: bool) -> RetryReport:
    homes = Homes(stored.state)
    order = {node: number for number, node in enumerate(plan.nodes)}

    def sorted_tasks(keys: Iterator[str]) -> tuple[str, ...]:
        return tuple(sorted(set(keys), key=lambda key: (order.get(node_of(key), len(order)), key)))

    def is_task(key: str) -> bool:
        return bool(homes[key]) or not plan[key].is_group

    kept = {key for key in made.kept if is_task(key)}
    reached = {node_of(key) for key in made.kept}
    unreached = (node for node in plan.task_ids if node not in reached)
    begun = (
        key
        for key in made.again | made.undone
        if is_task(key) and stored.state.nodes[key].state is not NodeState.SKIPPED
    )
    return RetryReport(
        stored.run.id,
        sorted_tasks(iter([*begun, *unreached])),
        sorted_tasks(key for key in kept if made.state.nodes[key].state is NodeState.SUCCEEDED),
        dry_run,
    )


def _ended(status: RunStatus) -> str:
    return f"was {status}" if status in (RunStatus.CANCELLED, RunStatus.TERMINATED) else str(status)
