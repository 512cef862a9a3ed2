"""Spans by OpenTelemetry. The application configures the SDK as usual; where it did not, `providers` does."""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from graflow_celery.engine.observing import CallKind
from graflow_celery.ports import RunRef
from graflow_celery.tracing import providers
from graflow_celery.tracing.calls import Answer, shown
from graflow_celery.tracing.identity import span_id_of, trace_number
from graflow_celery.tracing.instrumentation import keep_quiet
from graflow_celery.tracing.light import LightSpan
from graflow_celery.tracing.story import FAULTS, Part

SCOPE = "graflow_celery"
RUNS_KEPT = 4096


class OpenTelemetryTracer:
    """Traces runs with OpenTelemetry: ``workflow("etl", tracer=OpenTelemetryTracer())``.

    Spans go to the provider of the process that makes them: the one that was set there, by ``opentelemetry-instrument``
    or in code, or one that is made of the variables ``OTEL_EXPORTER_OTLP_*``. To the workers travels that the run is
    traced, and nothing else.
    """

    name = "otel"

    def __init__(self, provider: trace.TracerProvider | None = None) -> None:
        """
        Args:
            provider: where spans of this process go, in place of the one that is set. Stays in this process.
        """
        self._provider = provider
        #: Is told how many spans of this process were dropped by what is made here; see `providers`.
        self.lost: providers.Lost = providers.nobody
        self._ids = _Ids()
        self._lock = threading.Lock()
        self._plain: Any = None
        self._tracer: Any = None
        self._source: Any = None
        self._scope: Any = None
        self._sampled: OrderedDict[str, TraceFlags] = OrderedDict()

    def prepare(self) -> None:
        """Makes what the first span needs, which takes its time: before a task is measured."""
        self._own()

    def describe(self) -> dict[str, str]:
        """What the run is to say of its tracer to the processes that come to run it: all strings, no secrets."""
        current = trace.get_current_span().get_span_context()
        caller = f"00-{current.trace_id:032x}-{current.span_id:016x}-{current.trace_flags:02x}"
        return {"tracer": self.name, **({"caller": caller} if current.is_valid else {})}

    def current(self, span: Any, part: Part, said: Mapping[str, str]) -> AbstractContextManager[Any]:
        """Makes the span of an attempt the current one. What is raised inside is not noted here."""
        return self.inside(span)

    def inside(self, span: Any) -> AbstractContextManager[Any]:
        return _Inside(span)

    def start(self, part: Part, said: Mapping[str, str]) -> Any:
        """The span of a part, which has begun."""
        if self._sink() is None:
            return self._open(part, self.attributes(part, said), self._links(part, said))
        context = self._context(part.run, part.span_id, remote=False)
        if not context.trace_flags.sampled:
            return NonRecordingSpan(context)
        return LightSpan(context, lambda: self._open(part, self.attributes(part, said), self._links(part, said)))

    def _open(self, part: Part, attributes: Mapping[str, Any], links: Sequence[Link]) -> Any:
        tracer = self._own()
        self._ids.want(trace_number(part.run.id), int(part.span_id, 16))
        start = _nanoseconds(part.start)
        return tracer.start_span(self.title(part), self._parent(part), _kind(part), attributes, links, start)

    def finish(self, span: Any, part: Part, said: Mapping[str, str], error: BaseException | None = None) -> None:
        """Ends the span of a part, which says what became of it."""
        if type(span) is LightSpan:
            sink = self._sink()
            if span.real is None and error is None and part.status not in FAULTS and sink is not None:
                sink.on_end(self._whole(part, said, span.get_span_context()))
                return
            span = span.become_real()
        if span.is_recording():
            span.set_attributes(self.outcome(part))
            if error is not None:
                span.record_exception(error)
        self._close(span, part)

    def _close(self, span: Any, part: Part) -> None:
        if part.status in FAULTS:
            span.set_status(Status(StatusCode.ERROR, part.reason or part.status))
        span.end(_nanoseconds(part.end))

    def tell(self, parts: Sequence[Part], said: Mapping[str, str]) -> None:
        """Spans of what has ended, at once."""
        sink = self._sink()
        for part in parts:
            if sink is None or part.status in FAULTS:
                attributes = self.attributes(part, said) | self.outcome(part)
                self._close(self._open(part, attributes, self._links(part, said)), part)
            else:
                sink.on_end(self._whole(part, said, self._context(part.run, part.span_id, remote=False)))

    def _whole(self, part: Part, said: Mapping[str, str], context: SpanContext) -> ReadableSpan:
        """The span of what ended well, without the SDK's steps of making, setting, copying."""
        return ReadableSpan(
            self.title(part),
            context,
            None if part.parent is None else self._context(part.run, part.parent),
            self._source.resource,
            self.attributes(part, said) | self.outcome(part),
            (),
            self._links(part, said),
            _kind(part),
            start_time=_nanoseconds(part.start),
            end_time=_nanoseconds(part.end),
            instrumentation_scope=self._scope,
        )

    def flush(self, seconds: float) -> bool:
        """Sends what there is, and waits for it so long at the most. Whether that was enough."""
        return self._tracer is None or providers.flush(self._provider or trace.get_tracer_provider(), seconds)

    # Calls to models and agents, inside of an attempt.

    def start_call(
        self, kind: CallKind, name: str, given: Mapping[str, Any], part: Part, said: Mapping[str, str]
    ) -> Any:
        """The span of a call that begins, under what is current."""
        self._own()
        attributes = self.call_attributes(kind, name, given, part, said)
        title = name if kind == "generation" else self.agent_title(name)
        return self._plain.start_span(title, kind=SpanKind.CLIENT, attributes=attributes)

    def finish_call(self, span: Any, kind: CallKind, result: Any, error: BaseException | None = None) -> None:
        if kind == "generation" and error is None:
            span.set_attributes(self.answer_attributes(Answer.of(result)))
        if error is not None:
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        span.end()

    def agent_title(self, name: str) -> str:
        return f"invoke_agent {name}"

    def call_attributes(
        self, kind: CallKind, name: str, given: Mapping[str, Any], part: Part, said: Mapping[str, str]
    ) -> dict[str, Any]:
        """By OpenTelemetry's conventions for generative AI, without what was asked and answered."""
        if kind == "agent":
            return {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": name}
        parameters = {f"gen_ai.request.{key}": value for key, value in shown(given["parameters"]).items()}
        return {"gen_ai.operation.name": "chat", "gen_ai.request.model": given["model"], **parameters}

    def answer_attributes(self, answer: Answer) -> dict[str, Any]:
        names = {"input": "gen_ai.usage.input_tokens", "output": "gen_ai.usage.output_tokens"}
        found: dict[str, Any] = {names[key]: count for key, count in answer.tokens.items() if key in names}
        return {**found, **({"gen_ai.response.model": answer.model} if answer.model else {})}

    # What a span says.

    def title(self, part: Part) -> str:
        """The same for all that are alike: neither a run's id nor an item's number."""
        return f"{part.kind} {part.task}"

    def attributes(self, part: Part, said: Mapping[str, str]) -> dict[str, Any]:
        """Few: there are two spans for each node, and each attribute of them takes its time, three times over."""
        what = "workflow" if part.kind in ("run", "submit") else "group" if part.kind == "group" else "node"
        found: dict[str, Any] = {"graflow.run.id": part.run.id, f"graflow.{what}": part.key}
        if part.attempt:
            found["graflow.attempt"] = part.attempt
        if part.worker:
            found["graflow.worker"] = part.worker
        return found

    def outcome(self, part: Part) -> dict[str, Any]:
        found = {"graflow.status": part.status}
        return found | {"graflow.reason": part.reason} if part.reason else found

    # Where it belongs.

    def _own(self) -> Any:
        if self._tracer is None:
            with self._lock:
                if self._tracer is None:
                    self._plain = self.make_tracer()
                    self._tracer = self._ids.given_to(self._plain)
                    keep_quiet()
        return self._tracer

    def make_tracer(self) -> Any:
        self._source = self._provider or providers.current(self.lost)
        tracer = self._source.get_tracer(SCOPE)
        self._scope = getattr(tracer, "_instrumentation_scope", None)
        return tracer

    def _sink(self) -> providers.Counting | None:
        """Where spans go that are made here as a whole; None where others look at them, who are told of each step."""
        self._own()
        return getattr(self._source, "sink", None)

    def _parent(self, part: Part) -> contexts.Context:
        """In a context of its own: what happens to be current here has nothing to do with it."""
        if part.parent is None:
            return _NOTHING
        return trace.set_span_in_context(NonRecordingSpan(self._context(part.run, part.parent)), _NOTHING)

    def _context(self, run: RunRef, span_id: str, *, remote: bool = True) -> SpanContext:
        return SpanContext(trace_number(run.id), int(span_id, 16), remote, self._flags(run))

    def _flags(self, run: RunRef) -> TraceFlags:
        """Whether the sampler takes the run's trace: it is asked as if for the root, by every process alike."""
        flags = self._sampled.get(run.id)
        if flags is None:
            sampler = getattr(self._own(), "sampler", None)
            taken = sampler is None or sampler.should_sample(None, trace_number(run.id), "run").decision
            flags = TraceFlags(TraceFlags.SAMPLED if taken is True or taken.is_sampled() else TraceFlags.DEFAULT)
            with self._lock:
                self._sampled[run.id] = flags
                while len(self._sampled) > RUNS_KEPT:
                    self._sampled.popitem(last=False)
        return flags

    def _links(self, part: Part, said: Mapping[str, str]) -> list[Link]:
        links: list[Link] = []
        if part.follows is not None:
            links.append(Link(self._context(part.run, part.follows), {"graflow.link": "attempt before"}))
        if part.kind == "run" and part.run.first > 1:
            before = RunRef(part.run.id, part.run.hash)
            links.append(Link(self._context(before, span_id_of(before, "run")), {"graflow.link": "first try"}))
        if part.kind == "run" and (origin := said.get("resumed_from")):
            before = RunRef(origin, "")
            links.append(Link(self._context(before, span_id_of(before, "run")), {"graflow.link": "resumed from"}))
        if part.kind in ("run", "submit") and (caller := _span_context(said.get("caller", ""))) is not None:
            links.append(Link(caller, {"graflow.link": "submitted by"}))
        return links


class _Inside:
    """Makes a span the current one for a block, and leaves it as it is when something is raised there.

    What ``trace.use_span`` does, without its generator.
    """

    __slots__ = ("_span", "_token")

    def __init__(self, span: Any) -> None:
        self._span = span

    def __enter__(self) -> Any:
        self._token = contexts.attach(trace.set_span_in_context(self._span))
        return self._span

    def __exit__(self, *_: object) -> None:
        contexts.detach(self._token)


_NOTHING = contexts.Context()


class _Ids(IdGenerator):
    """An id generator of the SDK's kind that gives the ids that are wanted next in this thread."""

    def __init__(self) -> None:
        super().__init__()
        self._wanted = threading.local()

    def want(self, trace_id: int, span_id: int) -> None:
        self._wanted.ids = trace_id, span_id

    def generate_trace_id(self) -> int:
        return int(self._wanted.ids[0])

    def generate_span_id(self) -> int:
        return int(self._wanted.ids[1])

    def is_trace_id_random(self) -> bool:
        return False

    def given_to(self, tracer: Any) -> Any:
        """A copy of the SDK's tracer that takes its ids from here; of another maker's, itself: its ids are random."""
        if not hasattr(tracer, "id_generator"):
            return tracer
        own = copy.copy(tracer)
        own.id_generator = self
        return own


def _span_context(traceparent: str) -> SpanContext | None:
    try:
        _, trace_id, span_id, flags = traceparent.split("-")
        return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16)))
    except ValueError:
        return None


def _kind(part: Part) -> SpanKind:
    return SpanKind.PRODUCER if part.kind == "submit" else SpanKind.INTERNAL


def _nanoseconds(seconds: float) -> int | None:
    return int(seconds * 1e9) or None
