"""Gathers what is known of a run and explains it. It changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.state import NodeState
from graflow_celery.engine.explaining import Facts, explained
from graflow_celery.engine.explanation import Explanation
from graflow_celery.engine.feedback import requests
from graflow_celery.engine.happenings import TELLING
from graflow_celery.errors import BlobMissingError, BlobRejectedError
from graflow_celery.ports import NOTHING, NodeReport, RunRef
from graflow_celery.redis_backend.events import newest

#: Events that are read at the most, from the newest back, to find those that are told.
SCANNED = 20_000


def explain(runtime: Runtime, run: RunRef, most: int | None = 20) -> Explanation:
    """What a run waits for and what befell it; at most so many of each, None for all. Raises RunNotFoundError."""
    store = runtime.store
    details = store.details(run.id)
    records = store.records(run)
    outbox, watch = store.schedule(run)
    events = newest(
        runtime.client, runtime.keys.run(run.id).events, TELLING, most, SCANNED if most is not None else None
    )

    def errors(nodes: Sequence[str]) -> Mapping[str, str]:
        found = zip(nodes, store.outcomes(run, nodes), strict=True)
        return {node: outcome.error for node, outcome in found if outcome.error is not None}

    facts = Facts(
        run=run.id,
        now=runtime.liveness.now(),
        plan_for=lambda graph: runtime.plan_for(run, graph),
        details=details,
        records=records,
        items=_items(runtime, run, records),
        outbox=outbox,
        watch=watch,
        requests=requests(store.feedback(run), ended="finished" in details),
        leases=runtime.liveness.living(),
        depths=runtime.depth,
        errors=errors,
        events=events,
        monitor=runtime.liveness.leader(),
        timeout=runtime.settings.heartbeat_timeout,
        queue=runtime.settings.queue,
    )
    return explained(facts, most)


def _items(runtime: Runtime, run: RunRef, records: Mapping[str, NodeReport]) -> dict[str, int]:
    """How many items open mapped tasks have; nothing where the graph is gone."""
    found: dict[str, int] = {}
    for key, report in records.items():
        if report.state is NodeState.RUNNING and report.attempt == 0:
            try:
                spec = runtime.plan_for(run, report.graph)[key]
            except (BlobMissingError, BlobRejectedError):
                return {}
            count = runtime.store.input(run, key) if spec.map is not None else NOTHING
            if count is not NOTHING:
                found[key] = int(count)
    return found
