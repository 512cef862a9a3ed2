"""Which runs are traced, and by what, in a process that takes part in distributed runs.

A run says so itself: the field ``tracing`` of it, written when it was submitted. Of one that says nothing, the settings
decide. Keys and addresses of where spans go are each process's own and never travel.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from graflow_celery.celery_backend.recent import Recent
from graflow_celery.core.plan import Plan
from graflow_celery.engine.untraced import UNTRACED_SPAN
from graflow_celery.errors import ConfigError, ExtraMissingError, GraflowError
from graflow_celery.ports import Attempt, EventRecord, RunRef, Span
from graflow_celery.redis_backend.run_store import RedisRunStore
from graflow_celery.tracing import following
from graflow_celery.tracing.choosing import TRACERS, made
from graflow_celery.tracing.following import Follower, Told
from graflow_celery.tracing.identity import Kind, traceparent_of
from graflow_celery.tracing.story import Records

RUNS_KEPT = 4096

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Known:
    """What a run says of its tracer, and what follows it once that was asked for."""

    said: Mapping[str, str]
    follower: Follower | None = None


class RunTracers:
    """See :class:`graflow_celery.ports.Tracer`. Those of one process.

    Args:
        default: the setting ``tracing``.
        read: the field ``tracing`` of a run. ``told``: what the store has of a run that has ended.
        lost: is called with how many spans more this process dropped.
    """

    def __init__(
        self,
        default: str,
        read: Callable[[RunRef], str],
        told: Callable[[RunRef], Told],
        lost: Callable[[int], None] | None = None,
    ) -> None:
        self._default = default
        self._read = read
        self._told = told
        self._lost = lost
        self._known: Recent[str, _Known] = Recent(RUNS_KEPT)
        self._tracers: dict[str, Any] = {}

    def begin(self, attempt: Attempt) -> Span:
        follower = self._follower(attempt.run)
        return UNTRACED_SPAN if follower is None else follower.begin(attempt)

    def ended(self, run: RunRef) -> None:
        follower = self._follower(run)
        if follower is not None:
            follower.ended(run)

    def prepare(self) -> None:
        """Has the tracer ready before the first run that the settings want traced."""
        tracer = self._tracer(self._default)
        if tracer is not None:
            following.prepare(tracer)

    def describe(self, tracer: Any, **more: str) -> Mapping[str, str]:
        """What a run that is submitted here is to say of its tracer; nothing if it is not traced.

        Args:
            tracer: the workflow's; the setting decides where it has none.
            more: what else the run is to say.

        Raises:
            ConfigError: it is no tracer that workers know.
            ExtraMissingError: the setting names one that is not installed here.
        """
        if tracer is None and self._default == "off":
            return {}
        chosen = tracer if tracer is not None else self._made(self._default)
        if getattr(chosen, "name", None) not in TRACERS:
            raise ConfigError(
                f"tracer={chosen!r}: workers know OpenTelemetryTracer and LangfuseTracer of graflow_celery.tracing. "
                f"Use one of them, or follow the run with execute(progress=...)."
            )
        self._tracers[chosen.name] = chosen
        return {"tracing": json.dumps({**chosen.describe(), **more}, separators=(",", ":"))}

    def submitted(self, run: RunRef, plan: Plan, began: float) -> None:
        """Tells of the submit, which began at that time."""
        follower = self._follower(run)
        if follower is not None:
            follower.submitted(run, plan, began, time.time())

    def know(self, run: RunRef, described: Mapping[str, str]) -> None:
        """Notes what a run says that was just made here."""
        self._known.put(run.id, _Known(json.loads(described.get("tracing", "{}"))))

    def headers(self, run: RunRef, kind: Kind, key: str) -> Mapping[str, str]:
        """What messages of a run carry for others that trace them. Costs no look at the store."""
        known = self._known.get(run.id)
        traced = self._default != "off" if known is None or not known.said else True
        return {"traceparent": traceparent_of(run, kind, key)} if traced else {}

    def _follower(self, run: RunRef) -> Follower | None:
        """What follows a run, the same each time: it is asked for with every attempt."""
        known = self._known.get(run.id)
        if known is None:
            try:
                known = _Known(json.loads(self._read(run) or "{}"))
            except (redis.RedisError, GraflowError):
                return None  # the store is away; what the run says is asked for again
            self._known.put(run.id, known)
        if known.follower is None:
            tracer = self._tracer(known.said.get("tracer", self._default))
            known.follower = None if tracer is None else Follower(tracer, self._told, known.said)
        return known.follower

    def _tracer(self, name: str) -> Any:
        """The process's tracer of a name; None for what is not installed here."""
        if name not in self._tracers:
            try:
                self._tracers[name] = self._made(name) if name in TRACERS else None
            except ExtraMissingError as error:
                logger.warning("runs are not traced here: %s", error)
                self._tracers[name] = None
        return self._tracers[name]

    def _made(self, name: str) -> Any:
        tracer = made(name)
        if self._lost is not None:
            tracer.lost = self._lost
        return tracer


def told(run: RunRef, store: RedisRunStore, plan_for: Callable[..., Plan], events: Iterable[EventRecord]) -> Told:
    """What is to be told of a run that has ended. ``plan_for``: of a run and of the graph of added tasks, if any."""
    graphs: dict[str, str] = {}

    def plan_of(key: str) -> Plan:
        plan = plan_for(run)
        if key in plan:
            return plan
        if not graphs:
            graphs.update({node: report.graph for node, report in store.records(run).items()})
        return plan_for(run, graphs.get(key, ""))

    details = store.details(run.id)

    def records() -> Records:
        began, ended = (int(details.get(name, 0)) / 1000 for name in ("started", "finished"))
        return Records(store.records(run), began, ended, details["status"], details.get("reason", ""))

    return Told(details.get("workflow", ""), events, plan_of, records)
