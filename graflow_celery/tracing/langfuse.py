"""The same tree as observations of Langfuse, whose SDK stands on OpenTelemetry: ids and parents are those of `otel`."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import langfuse
from langfuse import LangfuseOtelSpanAttributes as Names
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter

from graflow_celery.engine.observing import CallKind
from graflow_celery.tracing import providers
from graflow_celery.tracing.calls import Answer, shown
from graflow_celery.tracing.otel import OpenTelemetryTracer
from graflow_celery.tracing.story import FAULTS, Part

#: The scope by which Langfuse knows what was made for it.
SCOPE = "langfuse-sdk"
PATH = "api/public/otel/v1/traces"
CLOUD = "https://cloud.langfuse.com"
#: Seconds for one request, and for which observations wait to go out together, unless Langfuse's variables say else.
TIMEOUT, INTERVAL = 2, 1.0


class LangfuseTracer(OpenTelemetryTracer):
    """Traces runs as Langfuse observations: ``workflow("agents", tracer=LangfuseTracer(user_id="ada"))``.

    Session, user and tags travel with the run; keys do not: workers read theirs from ``LANGFUSE_PUBLIC_KEY``,
    ``LANGFUSE_SECRET_KEY`` and ``LANGFUSE_BASE_URL``. What tasks receive and return is not sent; what they ask models
    through `LLMClient` is, and the answers.
    """

    name = "langfuse"

    def __init__(
        self,
        public_key: str | None = None,
        secret_key: str | None = None,
        host: str | None = None,
        *,
        session_id: str | None = None,
        user_id: str | None = None,
        tags: Sequence[str] = (),
        provider: TracerProvider | None = None,
        enabled: bool = True,
        enable_runtime_graph: bool = True,
    ) -> None:
        """
        Args:
            public_key, secret_key, host: for this process, in place of the variables.
            session_id: the session that runs belong to; by default each is one of its own, under its id.
            user_id, tags: of all observations of the runs.
            provider: see :class:`OpenTelemetryTracer`.
            enabled: whether this process sends anything.
            enable_runtime_graph: graflow's, taken and without effect: the tree of observations is that graph.
        """
        super().__init__(provider)
        self._sdk_provider = provider
        self._enabled = enabled
        self._public_key = public_key or os.environ.get("LANGFUSE_PUBLIC_KEY", "")
        self._secret_key = secret_key or os.environ.get("LANGFUSE_SECRET_KEY", "")
        named = os.environ.get("LANGFUSE_BASE_URL") or host or os.environ.get("LANGFUSE_HOST") or CLOUD
        self._base_url = (host or named).rstrip("/")
        self._labels = {"session_id": session_id or "", "user_id": user_id or "", "tags": ",".join(tags)}

    def __repr__(self) -> str:
        return f"LangfuseTracer({self._base_url})"

    def describe(self) -> dict[str, str]:
        return {**super().describe(), **{name: value for name, value in self._labels.items() if value}}

    def current(self, span: Any, part: Part, said: Mapping[str, str]) -> AbstractContextManager[Any]:
        """Observations that the user's code makes itself belong to the same session and user."""
        return _both(super().current(span, part, said), langfuse.propagate_attributes(**_propagated(part, said)))

    def make_tracer(self) -> Any:
        if not self._enabled:
            return trace.NoOpTracer()
        if not (self._public_key and self._secret_key):
            providers.warn(
                "a run is traced by Langfuse, but this process has no keys: set LANGFUSE_PUBLIC_KEY and "
                "LANGFUSE_SECRET_KEY"
            )
            return trace.NoOpTracer()
        provider = self._sdk_provider or _current()
        langfuse.Langfuse(
            public_key=self._public_key,
            secret_key=self._secret_key,
            base_url=self._base_url,
            tracer_provider=provider,
            span_exporter=providers.Forgiving(self._exporter, self._base_url, self.lost),
            flush_interval=None if os.environ.get("LANGFUSE_FLUSH_INTERVAL") else INTERVAL,
        )
        return provider.get_tracer(SCOPE, langfuse.__version__, attributes={"public_key": self._public_key})

    def _exporter(self) -> SpanExporter:
        """As https://langfuse.com/integrations/native/opentelemetry describes it."""
        login = base64.b64encode(f"{self._public_key}:{self._secret_key}".encode()).decode()
        return OTLPSpanExporter(
            endpoint=f"{self._base_url}/{PATH}",
            headers={
                "Authorization": f"Basic {login}",
                "x-langfuse-sdk-name": "python",
                "x-langfuse-sdk-version": langfuse.__version__,
                "x-langfuse-public-key": self._public_key,
                "x-langfuse-ingestion-version": "4",
            },
            timeout=float(os.environ.get("LANGFUSE_TIMEOUT") or TIMEOUT),
            compression=Compression.Gzip,
        )

    # What an observation says.

    def title(self, part: Part) -> str:
        if part.kind == "submit":
            return f"submit {part.key}"
        return f"{part.key} #{part.attempt}" if part.attempt else part.key

    def attributes(self, part: Part, said: Mapping[str, str]) -> dict[str, Any]:
        return {**_of_trace("span", part, said), **_metadata(super().attributes(part, said))}

    def outcome(self, part: Part) -> dict[str, Any]:
        found: dict[str, Any] = _metadata(super().outcome(part))
        if part.status in FAULTS:
            found |= {Names.OBSERVATION_LEVEL: "ERROR", Names.OBSERVATION_STATUS_MESSAGE: part.reason or part.status}
        return found

    def agent_title(self, name: str) -> str:
        return name

    def call_attributes(
        self, kind: CallKind, name: str, given: Mapping[str, Any], part: Part, said: Mapping[str, str]
    ) -> dict[str, Any]:
        found = _of_trace(kind, part, said)
        if kind == "generation":
            found |= {
                Names.OBSERVATION_MODEL: given["model"],
                Names.OBSERVATION_MODEL_PARAMETERS: json.dumps(shown(given["parameters"])),
                Names.OBSERVATION_INPUT: json.dumps(given["messages"], default=str),
            }
        return found

    def answer_attributes(self, answer: Answer) -> dict[str, Any]:
        found: dict[str, Any] = {Names.OBSERVATION_OUTPUT: answer.text}
        if answer.model:
            found[Names.OBSERVATION_MODEL] = answer.model
        if answer.tokens:
            found[Names.OBSERVATION_USAGE_DETAILS] = json.dumps(answer.tokens)
        if answer.cost is not None:
            found[Names.OBSERVATION_COST_DETAILS] = json.dumps({"total": answer.cost})
        return found

    def finish_call(self, span: Any, kind: CallKind, result: Any, error: BaseException | None = None) -> None:
        if error is not None:
            told = {Names.OBSERVATION_LEVEL: "ERROR", Names.OBSERVATION_STATUS_MESSAGE: str(error)}
            span.set_attributes(told)
        super().finish_call(span, kind, result, error)


def _of_trace(kind: str, part: Part, said: Mapping[str, str]) -> dict[str, Any]:
    """Langfuse keeps what belongs to a trace with each of its observations."""
    found: dict[str, Any] = {
        Names.OBSERVATION_TYPE: kind,
        Names.TRACE_NAME: part.workflow,
        Names.TRACE_SESSION_ID: said.get("session_id") or part.run.id,
    }
    if "user_id" in said:
        found[Names.TRACE_USER_ID] = said["user_id"]
    if "tags" in said:
        found[Names.TRACE_TAGS] = said["tags"].split(",")
    return found


def _metadata(attributes: Mapping[str, Any]) -> dict[str, str]:
    """As the server decodes it: one attribute for each key, each value as JSON."""
    return {
        f"{Names.OBSERVATION_METADATA}.{name.removeprefix('graflow.').replace('.', '_')}": json.dumps(value)
        for name, value in attributes.items()
    }


def _propagated(part: Part, said: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {"session_id": said.get("session_id") or part.run.id, "trace_name": part.workflow}
    if "user_id" in said:
        found["user_id"] = said["user_id"]
    if "tags" in said:
        found["tags"] = said["tags"].split(",")
    return found


@contextmanager
def _both(*managers: AbstractContextManager[Any]) -> Any:
    with ExitStack() as stack:
        for manager in managers:
            stack.enter_context(manager)
        yield


def _current() -> TracerProvider:
    """The SDK's provider that is set in this process, or a new one, which is set."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        return provider
    variables = {Names.ENVIRONMENT: "LANGFUSE_TRACING_ENVIRONMENT", Names.RELEASE: "LANGFUSE_RELEASE"}
    said = {name: os.environ[variable] for name, variable in variables.items() if os.environ.get(variable)}
    made = TracerProvider(resource=Resource.create(said), shutdown_on_exit=False)
    trace.set_tracer_provider(made)
    return made
