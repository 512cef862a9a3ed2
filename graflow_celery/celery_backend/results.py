"""What a run, or a node of it, has come to: its result, or why there is none."""

from __future__ import annotations

from typing import Any

from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.activation import node_of
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import RunStatus
from graflow_celery.engine.context import last_result
from graflow_celery.errors import GraflowWorkflowCanceledError, RunFailedError
from graflow_celery.ports import RunRef


def run_result(runtime: Runtime, run: RunRef) -> Any:
    """The run's last result. Raises what `Run.result` raises."""
    details = runtime.store.details(run.id)
    status = RunStatus(details["status"])
    if status in (RunStatus.SUCCEEDED, RunStatus.TERMINATED):
        return last_result(runtime.context(run, runtime.plan_for(run)), status, details.get("last_node"))
    if status is RunStatus.RUNNING:
        raise RunFailedError(run.id, "it has not ended yet. Wait for it: run.wait()")
    if status is RunStatus.WAITING:
        raise RunFailedError(run.id, f"it waits for a person. See: graflow-celery feedback list {run.id}")
    error = runtime.store.error(run, node_of(details.get("failed_node", "")))
    if status is RunStatus.CANCELLED:
        raise error or GraflowWorkflowCanceledError(details.get("reason", ""))
    raise error or RunFailedError(run.id, details.get("reason", "failed"))


def node_result(runtime: Runtime, run: RunRef, node: str) -> Any:
    """The result of a node, by its id or key; of a group, those of its members. Raises what `Run.result` raises."""
    name = node_of(node)
    found = runtime.store.results(run, [name])
    if name in found:
        return found[name]
    plan = _plan_of(runtime, run, name)
    if plan[name].is_group:
        return runtime.context(run, plan).get_result(name)
    error = runtime.store.error(run, name)
    raise error or RunFailedError(run.id, f"node '{name}' has no result: it did not end, or was skipped")


def _plan_of(runtime: Runtime, run: RunRef, name: str) -> Plan:
    """The plan that has a node: the workflow's, or that of tasks which were added at run time, as a record says."""
    plan = runtime.plan_for(run)
    if name not in plan:
        for key, report in runtime.store.records(run).items():
            if report.graph and node_of(key) == name:
                return runtime.plan_for(run, report.graph)
    return plan
