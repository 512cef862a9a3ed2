"""Shows a run on workers to whoever waits for it: on a terminal live, elsewhere as lines."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import RunStatus
from graflow_celery.errors import BlobMissingError, BlobRejectedError
from graflow_celery.ports import NOTHING, EventRecord, NodeReport, RunRef

if TYPE_CHECKING:
    from graflow_celery.terminal.live import Display

#: How many of the latest runs are looked at to find an earlier one of a workflow.
LOOKED_AT = 20


def display(runtime: Runtime, run: RunRef, *, as_json: bool = False, quiet: bool = False) -> Display:
    """What shows the run where standard output goes to: feed it the run's events."""
    plan = runtime.plan_for(run)

    def plan_for(graph: str) -> Plan | None:
        try:
            return runtime.plan_for(run, graph)
        except (BlobMissingError, BlobRejectedError):  # the run goes on, and is shown without what was added
            return None

    # Loaded by name: a program that shows nothing need not load what draws.
    live: Any = importlib.import_module("graflow_celery.terminal.live")
    made: Display = live.display(
        plan, run.id, as_json=as_json, quiet=quiet, plan_for=plan_for, earlier=lambda: earlier(runtime, run, plan)
    )
    return made


@contextmanager
def shown(runtime: Runtime, run: RunRef) -> Iterator[Callable[[EventRecord], None]]:
    """Shows what the block feeds; and at its end, if the run has ended, how."""
    with shown_by(display(runtime, run), run) as display_:
        yield display_.feed


def shown_by(display: Display, run: RunRef) -> AbstractContextManager[Display]:
    """Shows what the block feeds to a display; and at its end, if the run has ended, how."""
    live: Any = importlib.import_module("graflow_celery.terminal.live")
    made: AbstractContextManager[Display] = live.shown(display, run.id)
    return made


def as_html(runtime: Runtime, run: RunRef) -> str:
    """How the run stands at this moment, for a notebook. Raises RunNotFoundError, BlobMissingError."""
    plan, store = runtime.plan_for(run), runtime.store
    mapped = [spec.id for spec in plan.nodes.values() if spec.map is not None]
    nodes: dict[str, NodeReport | None]
    if mapped:
        nodes = dict(store.records(run))
    else:
        nodes = dict(zip(plan.nodes, store.reports(run, list(plan.nodes)), strict=True))
    items = {name: int(count) for name in mapped if (count := store.input(run, name)) is not NOTHING}
    failed = [name for name, one in nodes.items() if one is not None and one.state == "failed"]
    errors = {name: one.error or "failed" for name, one in zip(failed, store.outcomes(run, failed), strict=True)}
    notebook = importlib.import_module("graflow_celery.terminal.notebook")
    made: str = notebook.run_as_html(plan, run.id, store.details(run.id), nodes, errors, items, time.time())
    return made


def earlier(runtime: Runtime, run: RunRef, plan: Plan) -> Mapping[str, float]:
    """How many seconds each node that is in no group took in the last run of this workflow that succeeded.

    Empty if none of the latest runs is one. Three round trips.
    """
    before = [run_id for run_id in runtime.store.recent(LOOKED_AT) if run_id != run.id]
    with runtime.client.pipeline(transaction=False) as pipe:
        for run_id in before:
            pipe.hmget(runtime.keys.run(run_id).meta, "workflow", "status")
        found = pipe.execute()
    wanted = [plan.name.encode(), RunStatus.SUCCEEDED.encode()]
    latest = next((run_id for run_id, told in zip(before, found, strict=True) if told == wanted), None)
    if latest is None:
        return {}
    names = [spec.id for spec in plan.nodes.values() if spec.group is None]
    reports = zip(names, runtime.store.reports(RunRef(latest, ""), names), strict=True)
    return {name: report.duration for name, report in reports if report is not None and report.state == "succeeded"}
