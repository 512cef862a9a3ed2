"""Follows runs for the engine, with a tracer. What goes wrong in the tracer stays here: a run notices nothing of it."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar
from weakref import WeakSet

from graflow_celery.core.events import Event, NodeFailed
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import Applied
from graflow_celery.engine.observing import OBSERVER, CallKind
from graflow_celery.engine.untraced import UNTRACED_SPAN
from graflow_celery.ports import Attempt, EventRecord, Outcome, RunRef, Span
from graflow_celery.tracing.calls import traced_by_litellm
from graflow_celery.tracing.identity import span_id_of
from graflow_celery.tracing.story import Part, attempt_part, node_part, story

#: Seconds for which the end of a process waits for what is still to be told.
FAREWELL = 2.0

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Told:
    """What the store has of a run that has ended. ``plan_of``: see `story`."""

    workflow: str
    events: Iterable[EventRecord]
    plan_of: Callable[[str], Plan]


class Follower:
    """See :class:`graflow_celery.ports.Tracer`.

    Args:
        tracer: an ``OpenTelemetryTracer``, or what has its methods.
        read: brings what is known of a run that has ended.
        said: what the run says of its tracer; see ``OpenTelemetryTracer.describe``.
    """

    def __init__(self, tracer: Any, read: Callable[[RunRef], Told], said: Mapping[str, str]) -> None:
        self.tracer = tracer
        self._read = read
        self._said = said
        REPORTS.know(tracer)

    def begin(self, attempt: Attempt) -> Span:
        return _guarded(lambda: _Following(self.tracer, attempt, self._said)) or UNTRACED_SPAN

    def submitted(self, run: RunRef, plan: Plan, start: float, end: float) -> None:
        """Tells that a client submitted the run. Times are in seconds since the epoch."""
        times: dict[str, Any] = {"start": start, "end": end, "status": "succeeded"}
        part = Part(run, plan.name, "submit", plan.name, parent=span_id_of(run, "run"), **times)
        _guarded(lambda: self.tracer.tell([part], self._said))

    def ended(self, run: RunRef) -> None:
        """Tells of the run in a thread: the node that ended it must not wait."""
        REPORTS.start(lambda: _guarded(lambda: self._tell(run)))

    def _tell(self, run: RunRef) -> None:
        told = self._read(run)
        self.tracer.tell(story(run, told.workflow, told.plan_of, told.events), self._said)


class _Following:
    """One attempt."""

    def __init__(self, tracer: Any, attempt: Attempt, said: Mapping[str, str]) -> None:
        self._tracer = tracer
        self._attempt = attempt
        self._said = said
        self._began = time.time()
        where: dict[str, Any] = {"start": self._began, "worker": attempt.worker}
        self._part = attempt_part(attempt.run, attempt.plan.name, attempt.node, attempt.number, **where)
        self._span = tracer.start(self._part, said)

    def call(self, function: Callable[[], Any]) -> Any:
        with self._current():
            result = function()
        return self._awaited(result) if isinstance(result, Coroutine) else result

    async def _awaited(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        with self._current():
            return await coroutine

    @contextmanager
    def _current(self) -> Iterator[None]:
        token = OBSERVER.set(self)
        try:
            with self._tracer.current(self._span, self._part, self._said):
                yield
        finally:
            OBSERVER.reset(token)

    def observe(self, kind: CallKind, name: str, given: Mapping[str, Any], call: Callable[[], Any]) -> Any:
        """See :class:`graflow_celery.engine.observing.Observer`."""
        if kind == "generation" and traced_by_litellm():
            return call()
        span = _guarded(lambda: self._tracer.start_call(kind, name, given, self._part, self._said))
        if span is None:
            return call()
        try:
            with self._tracer.inside(span):
                result = call()
        except BaseException as error:
            _guarded(partial(self._tracer.finish_call, span, kind, None, error))
            raise
        if isinstance(result, Coroutine):
            return self._answered(span, kind, result)
        _guarded(lambda: self._tracer.finish_call(span, kind, result))
        return result

    async def _answered(self, span: Any, kind: CallKind, coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            with self._tracer.inside(span):
                result = await coroutine
        except BaseException as error:
            _guarded(partial(self._tracer.finish_call, span, kind, None, error))
            raise
        _guarded(lambda: self._tracer.finish_call(span, kind, result))
        return result

    def end(self, event: Event, outcome: Outcome, applied: Applied) -> None:
        if not applied.stale:  # else whoever ends the run tells of it
            _guarded(lambda: self._end(event, outcome, applied))

    def _end(self, event: Event, outcome: Outcome, applied: Applied) -> None:
        part, reason = self._part, event.reason if isinstance(event, NodeFailed) else ""
        status = "failed" if applied.ended_node and outcome.error is not None else _status(event)
        became: dict[str, Any] = {"end": self._began + outcome.duration, "status": status, "reason": reason}
        self._tracer.finish(self._span, replace(part, **became), outcome.error)
        attempt = self._attempt
        if applied.ended_node and attempt.number == attempt.run.first:
            node = node_part(attempt.run, attempt.plan, attempt.node, start=self._began, **became)
            self._tracer.tell([node], self._said)


def _status(event: Event) -> str:
    kinds = {"NodeFailed": "retried", "NodeIterated": "iterated", "FeedbackRequested": "waiting"}
    return kinds.get(type(event).__name__, "succeeded")


class Reports:
    """What this process has still to tell. When it ends it waits for that, a little."""

    def __init__(self) -> None:
        self._threads: set[threading.Thread] = set()
        self._tracers: WeakSet[Any] = WeakSet()
        atexit.register(self.farewell)

    def know(self, tracer: Any) -> None:
        """A tracer that is to be flushed at the end."""
        self._tracers.add(tracer)

    def start(self, report: Callable[[], Any]) -> None:
        """Has something told in a thread of its own."""
        thread = threading.Thread(target=self._run, args=(report,), name="graflow-trace", daemon=True)
        self._threads.add(thread)
        thread.start()

    def farewell(self, seconds: float = FAREWELL) -> None:
        """Waits for what is under way and for what was not sent, so long at the most."""
        deadline = time.monotonic() + seconds
        for thread in list(self._threads):
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        for tracer in list(self._tracers):
            if _guarded(partial(tracer.flush, max(0.0, deadline - time.monotonic()))) is False:
                logger.warning("not all spans could be sent before the process ended: the rest is dropped")

    def _run(self, report: Callable[[], Any]) -> None:
        try:
            report()
        finally:
            self._threads.discard(threading.current_thread())


REPORTS = Reports()


class _Failures:
    """Says once in a process what a tracer raised."""

    def __init__(self) -> None:
        self.count = 0

    def note(self, error: Exception) -> None:
        self.count += 1
        if self.count == 1:
            logger.warning(
                "tracing failed, and runs go on without: %s: %s", type(error).__name__, error, exc_info=error
            )


FAILURES = _Failures()


def _guarded(call: Callable[[], Result]) -> Result | None:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - boundary: tracer calls
        FAILURES.note(error)
        return None
