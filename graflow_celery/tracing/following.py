"""Follows runs for the engine, with a tracer. What goes wrong in the tracer stays here: a run notices nothing of it."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
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
from graflow_celery.tracing.story import Part, Records, attempt_part, story

#: Seconds for which the end of a process waits for what is still to be told.
FAREWELL = 2.0
#: How many spans of a run that has ended are told before they are sent, and seconds for which that is waited for: the
#: queue of a provider is bounded, and drops what comes faster than it goes.
TOLD, SENT = 500, 5.0

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Told:
    """What the store has of a run that has ended. ``plan_of``, ``records``: see `story`."""

    workflow: str
    events: Iterable[EventRecord]
    plan_of: Callable[[str], Plan]
    records: Callable[[], Records] | None = None


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
        parts = story(run, told.workflow, told.plan_of, told.events, told.records)
        keeps_up = True
        for start in range(0, len(parts), TOLD):
            self.tracer.tell(parts[start : start + TOLD], self._said)
            keeps_up = keeps_up and (len(parts) <= TOLD or self.tracer.flush(SENT))


class _Following:
    """One attempt. It is on the way of every node: what can be left to the end of the run is told there."""

    __slots__ = ("_ended", "_part", "_said", "_span", "_tracer")

    def __init__(self, tracer: Any, attempt: Attempt, said: Mapping[str, str]) -> None:
        self._tracer = tracer
        self._said = said
        self._part = attempt_part(
            attempt.run, attempt.plan.name, attempt.node, attempt.number, start=time.time(), worker=attempt.worker
        )
        self._ended = 0.0
        self._span = tracer.start(self._part, said)

    def call(self, function: Callable[[], Any]) -> Any:
        token = OBSERVER.set(self)
        try:
            with self._tracer.current(self._span, self._part, self._said):
                result = function()
        finally:
            OBSERVER.reset(token)
            self._ended = time.time()
        return self._awaited(result) if isinstance(result, Coroutine) else result

    async def _awaited(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        token = OBSERVER.set(self)
        try:
            with self._tracer.current(self._span, self._part, self._said):
                return await coroutine
        finally:
            OBSERVER.reset(token)
            self._ended = time.time()

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
            _guarded(partial(self._end, event, outcome, applied))

    def _end(self, event: Event, outcome: Outcome, applied: Applied) -> None:
        part = self._part
        part.end = self._ended or time.time()
        part.reason = event.reason if isinstance(event, NodeFailed) else ""
        part.status = "failed" if applied.ended_node and outcome.error is not None else _status(event)
        self._tracer.finish(self._span, part, self._said, outcome.error)


def prepare(tracer: Any) -> None:
    """Has a tracer ready before its first run."""
    _guarded(tracer.prepare)


def _status(event: Event) -> str:
    return _BECAME.get(type(event).__name__, "succeeded")


_BECAME = {"NodeFailed": "retried", "NodeIterated": "iterated", "FeedbackRequested": "waiting"}


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
