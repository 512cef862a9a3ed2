"""What the pages show, read from the store as values that JSON holds. Every method blocks: call it in a thread.

Nothing is unpickled here, and no result is read: of an error its type, text and traceback are shown, which the store
has as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from graflow_celery.celery_backend.compiler import barrier_id, task_id
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.activation import node_of
from graflow_celery.core.plan import NodeSpec, Plan
from graflow_celery.core.state import RunStatus
from graflow_celery.engine.feedback import FeedbackRequest, requests
from graflow_celery.errors import BlobMissingError, BlobRejectedError, UnknownNodeError
from graflow_celery.ports import EventRecord, NodeReport, RunRef
from graflow_celery.redis_backend.catalog import RunCatalog
from graflow_celery.redis_backend.events import parse
from graflow_celery.redis_backend.progress import progress
from graflow_celery.runs import Run

RUNS_PER_PAGE = 25
#: Runs that a filtered list looks at for one page.
RUNS_SCANNED = 5_000
EVENTS_PER_ANSWER = 5_000
LONGEST_REASON = 500
LONGEST_TRACEBACK = 50_000
_CURSOR = re.compile(r"\d{1,20}-\d{1,20}")


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs are wanted: of a workflow, in a state, with a text in id, workflow or reason; empty for all."""

    workflow: str = ""
    state: str = ""
    text: str = ""

    def takes(self, run_id: str, details: Mapping[str, str]) -> bool:
        if self.workflow and details.get("workflow", "") != self.workflow:
            return False
        if self.state and details["status"] != self.state:
            return False
        looked_at = (run_id, details.get("workflow", ""), details.get("reason", ""))
        return not self.text or any(self.text.casefold() in one.casefold() for one in looked_at)


class Reader:
    """Reads runs; ``runtime`` gives the process's runtime when something is read."""

    def __init__(self, runtime: Callable[[], Runtime]) -> None:
        self._runtime = runtime

    def run(self, run_id: str) -> Run:
        """Raises RunNotFoundError."""
        runtime = self._runtime()
        return Run(runtime, RunRef(run_id, runtime.store.details(run_id)["graph"]))

    def runs(self, wanted: Filter, after: str = "") -> dict[str, Any]:
        """A page of the runs that are ``wanted``, and the workflows that were seen on the way."""
        runtime = self._runtime()
        found: list[dict[str, Any]] = []
        workflows: set[str] = set()
        scanned, more = 0, False
        for run_id, details in RunCatalog(runtime.client, runtime.keys).newest(RUNS_SCANNED, after):
            scanned += 1
            workflows.add(details.get("workflow", ""))
            if not wanted.takes(run_id, details):
                continue
            if len(found) == RUNS_PER_PAGE:
                more = True
                break
            found.append(_summary(run_id, details))
        cut = not more and scanned == RUNS_SCANNED
        return {"runs": found, "more": more, "workflows": sorted(workflows), "cut": cut, "now": self._now()}

    def graph(self, run_id: str) -> dict[str, Any]:
        """The graph that a run follows, as it was written. ``missing`` says why there is none."""
        run = self.run(run_id)
        told = {"run": run_id, "workflow": run.workflow}
        try:
            plan = run.plan
        except (BlobMissingError, BlobRejectedError) as error:
            return {**told, "nodes": [], "missing": str(error)}
        return {**told, "start": plan.start, "nodes": [_drawn(spec) for spec in plan.nodes.values()]}

    def changes(self, run_id: str, after: str = "", *, look: bool = False) -> dict[str, Any]:
        """How a run stands, and its events after the cursor ``after``; ``look``: also what keeps it from moving."""
        runtime = self._runtime()
        run = self.run(run_id)
        details = run.details()
        cursor = after if _CURSOR.fullmatch(after) else "0-0"
        key = runtime.keys.run(run_id).events
        entries = parse(runtime.client.xread({key: cursor}, count=EVENTS_PER_ANSWER)).get(key, [])
        ended = RunStatus(details["status"]).is_terminal
        return {
            **_summary(run_id, details),
            "now": self._now(),
            "events": [_told(record) for _, record in entries],
            "cursor": entries[-1][0] if entries else cursor,
            "more": len(entries) == EVENTS_PER_ANSWER,
            "asks": [_asked(request) for request in requests(run.records(), ended=ended) if request.is_open],
            "obstacle": run.obstacle() if look and not ended else "",
        }

    def node(self, run_id: str, key: str, *, known: Callable[[str], bool]) -> dict[str, Any]:
        """A node, by its activation's key: how it stands, its error, and Celery's ids of its attempts.

        Args:
            known: whether Flower has heard of a Celery task, so that it has a page of it.

        Raises:
            UnknownNodeError: nothing of the run has that key.
        """
        runtime, run = self._runtime(), self.run(run_id)
        reference = RunRef(run_id, run.details()["graph"])
        [report] = runtime.store.reports(reference, [key])
        error = runtime.client.hget(runtime.keys.run(run_id).errors, node_of(key))
        spec, plan = _spec(run, key)
        if spec is None and report is None:
            raise UnknownNodeError(key, tuple(plan.nodes) if plan is not None else ())
        is_group = spec is not None and spec.is_group
        ids: dict[int, str] = {}
        if is_group and plan is not None:
            ids = {0: barrier_id(reference, plan, key)}
        elif report is not None and report.attempt:
            ids = {number: task_id(reference, key, number) for number in range(1, report.attempt + 1)}
        return {
            "key": key,
            "id": node_of(key),
            "group": is_group,
            **_report(report),
            "options": _options(spec),
            "error": None if error is None else _error(error),
            "celery": [{"attempt": number, "id": name, "known": known(name)} for number, name in ids.items()],
        }

    def _now(self) -> float:
        seconds, micros = self._runtime().client.time()
        return float(seconds + micros / 1e6)


def _summary(run_id: str, details: Mapping[str, str]) -> dict[str, Any]:
    """A run's own fields: counts as numbers, times in seconds."""
    return {
        "run": run_id,
        "workflow": details.get("workflow", ""),
        "status": details["status"],
        "reason": details.get("reason", "")[:LONGEST_REASON],
        "started": int(details["started"]) / 1000,
        "finished": int(details["finished"]) / 1000 if "finished" in details else None,
        **progress(details),
    }


def _drawn(spec: NodeSpec) -> dict[str, Any]:
    """A node with what is drawn of it; what is empty is left out, as a graph may have thousands."""
    told = {
        "id": spec.id,
        "next": spec.successors,
        "loops": spec.loops,
        "group": spec.group,
        "is_group": spec.is_group,
        "map": spec.map is not None,
        "added": spec.owner is not None,
    }
    return {name: value for name, value in told.items() if value}


def _told(record: EventRecord) -> dict[str, Any]:
    """An event, in short names: there may be tens of thousands."""
    key = str(record.get("node", ""))
    told: dict[str, Any] = {
        "e": record["event"],
        "t": record["at"],
        "k": key,
        "n": node_of(key),
        "a": record.get("attempt"),
        "w": record.get("worker"),
        "d": record.get("duration"),
        "r": str(record.get("reason", ""))[:LONGEST_REASON],
        "q": record.get("request"),
    }
    return {name: value for name, value in told.items() if value}


def _asked(request: FeedbackRequest) -> dict[str, Any]:
    return {
        "id": request.feedback_id,
        "task": request.task_id,
        "type": request.feedback_type.value,
        "prompt": request.prompt,
        "options": list(request.options or ()),
        "late": request.status == "timeout",
    }


def _spec(run: Run, key: str) -> tuple[NodeSpec | None, Plan | None]:
    """The node as it was written; None for one that was added while the run went on, or if the graph is gone."""
    try:
        plan = run.plan
    except (BlobMissingError, BlobRejectedError):
        return None, None
    if key not in plan:
        return None, plan
    return plan[key], plan


def _report(report: NodeReport | None) -> dict[str, Any]:
    if report is None:
        return {"state": "waiting", "attempt": 0}
    return {
        "state": str(report.state),
        "attempt": report.attempt,
        "worker": report.worker,
        "started": report.started,
        "duration": report.duration,
        "losses": report.losses,
        "retries": report.retries,
        "cycle": report.cycle,
    }


def _options(spec: NodeSpec | None) -> dict[str, Any]:
    """What was said of how the node is to run."""
    if spec is None:
        return {}
    options = spec.options
    told = {
        "queue": options.queue,
        "priority": options.priority,
        "time limit": options.time_limit,
        "soft time limit": options.soft_time_limit,
        "retries": options.retries or None,
        "timeout": spec.timeout,
        "policy": type(spec.policy).__name__ if spec.is_group else None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _error(field: bytes) -> dict[str, str]:
    """What an error says, as the hash of errors holds it."""
    record = json.loads(field)
    return {
        "type": str(record.get("type", "")).rpartition(".")[2],
        "message": str(record.get("message", "")),
        "traceback": str(record.get("traceback", ""))[-LONGEST_TRACEBACK:],
    }
