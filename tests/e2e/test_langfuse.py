"""Runs traced by Langfuse's SDK: what its server would get, read by a collector in its place."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from langfuse import observe
from opentelemetry.sdk.trace import TracerProvider

from graflow_celery import LLMClient, RunStatus, task, workflow
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.engine.llm_client import make_message
from graflow_celery.ports import RunRef
from graflow_celery.testing import embedded_cluster
from graflow_celery.tracing import LangfuseTracer, trace_id_of
from graflow_celery.tracing.identity import span_id_of
from tests.collector import Collector, collecting

pytestmark = pytest.mark.workers

PUBLIC, SECRET = "pk-lf-tests", "sk-lf-not-to-be-seen"

#: Stands for LiteLLM on the workers.
LITELLM = """
from types import SimpleNamespace as N

def completion(model, messages, **parameters):
    if model == "broken":
        raise RuntimeError("no such model")
    answer = N(message=N(content=f"answer to {messages[-1]['content']}"))
    usage = N(prompt_tokens=7, completion_tokens=5, total_tokens=12)
    return N(choices=[answer], usage=usage, model=f"{model}-2026", _hidden_params={"response_cost": 0.25})
"""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as started:
        yield started


@pytest.fixture(scope="module")
def cluster(collector: Collector, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCluster]:
    path = tmp_path_factory.mktemp("litellm")
    (path / "litellm.py").write_text(LITELLM, encoding="utf-8")
    root = Path(__file__).parents[2]
    variables = {
        "LANGFUSE_PUBLIC_KEY": PUBLIC,
        "LANGFUSE_SECRET_KEY": SECRET,
        "LANGFUSE_HOST": collector.url,
        "PYTHONPATH": f"{path}:{root}",
    }
    with embedded_cluster(env=variables) as started:
        yield started


class Expert:
    def run(self, question: str) -> str:
        return f"{question}!"


@observe()
def of_the_users_own(text: str) -> str:
    return text.upper()


@task(inject_llm_client=True)
def ask(llm_client: LLMClient) -> str:
    asked = [make_message("user", "why?")]
    return llm_client.completion_text(asked, model="gpt", temperature=0.5, api_key="sk-of-the-provider")


@task(inject_llm_agent="expert")
def consult(llm_agent: Expert, ask: str) -> str:
    assert isinstance(llm_agent, Expert)
    return of_the_users_own(llm_agent.run(ask))


@task(inject_llm_client=True)
def ask_in_vain(llm_client: LLMClient) -> None:
    llm_client.completion([], model="broken")


def test_a_run_is_a_tree_of_observations(cluster: EmbeddedCluster, collector: Collector) -> None:
    tracer = LangfuseTracer(
        PUBLIC,
        SECRET,
        collector.url,
        session_id="chat-1",
        user_id="ada",
        tags=["a", "b"],
        provider=TracerProvider(),
    )
    with workflow("agents", tracer=tracer) as wf:
        ask >> consult
    wf.register_llm_agent("expert", Expert)
    run = wf.submit(settings=cluster.settings)
    assert run.wait(30) is RunStatus.SUCCEEDED
    assert run.result() == "ANSWER TO WHY?!"
    named = {span.name: span for span in collector.whole(trace_id_of(run.id), 9)}
    parents = {
        name: next((other for other, it in named.items() if it.id == span.parent), "") for name, span in named.items()
    }
    assert parents == {
        "agents": "",
        "ask": "agents",
        "consult": "agents",
        "ask #1": "ask",
        "consult #1": "consult",
        "chat gpt": "ask #1",
        "expert": "consult #1",
        "of_the_users_own": "consult #1",
        "submit agents": "agents",
    }
    reference = RunRef(run.id, run.graph_hash)
    assert {span.trace for span in named.values()} == {trace_id_of(run.id)}
    assert named["agents"].id == span_id_of(reference, "run")
    assert named["ask"].id == span_id_of(reference, "node", "ask")
    assert named["consult #1"].id == span_id_of(reference, "attempt", "consult", 1)
    metadata = {
        name: json.loads(named["consult #1"].attributes[f"langfuse.observation.metadata.{name}"])
        for name in ("run_id", "node", "attempt", "status")
    }
    assert metadata == {"run_id": run.id, "node": "consult", "attempt": 1, "status": "succeeded"}
    kinds = {name: span.attributes["langfuse.observation.type"] for name, span in named.items()}
    assert (kinds["agents"], kinds["ask"], kinds["chat gpt"], kinds["expert"]) == (
        "span",
        "span",
        "generation",
        "agent",
    )
    for span in named.values():
        assert (span.attributes["session.id"], span.attributes["user.id"]) == ("chat-1", "ada")
        assert span.attributes["langfuse.trace.name"] == "agents"
    generation = named["chat gpt"].attributes
    assert generation["langfuse.observation.model.name"] == "gpt-2026"
    assert json.loads(generation["langfuse.observation.model.parameters"]) == {"temperature": 0.5}
    assert json.loads(generation["langfuse.observation.usage_details"]) == {"input": 7, "output": 5, "total": 12}
    assert json.loads(generation["langfuse.observation.cost_details"]) == {"total": 0.25}
    assert json.loads(generation["langfuse.observation.input"]) == [{"role": "user", "content": "why?"}]
    assert generation["langfuse.observation.output"] == "answer to why?"
    assert set(collector.paths) == {"/api/public/otel/v1/traces"}
    login = base64.b64encode(f"{PUBLIC}:{SECRET}".encode()).decode()
    assert {headers["authorization"] for headers in collector.headers} == {f"Basic {login}"}


def test_a_failure_is_an_error_at_its_observation(cluster: EmbeddedCluster, collector: Collector) -> None:
    with workflow("vain", tracer=LangfuseTracer(provider=TracerProvider())) as wf:
        _ = ask_in_vain >> ask
    run = wf.submit(settings=cluster.settings)
    assert run.wait(30) is RunStatus.FAILED
    named = {span.name: span for span in collector.whole(trace_id_of(run.id), 4)}
    levels = {name: span.attributes.get("langfuse.observation.level") for name, span in named.items()}
    assert levels == dict.fromkeys(("vain", "ask_in_vain", "ask_in_vain #1", "chat broken"), "ERROR")
    assert named["ask_in_vain #1"].attributes["langfuse.observation.status_message"] == "RuntimeError: no such model"
    assert named["vain"].attributes["session.id"] == run.id


def test_no_secret_is_in_a_log_or_in_a_span(cluster: EmbeddedCluster, collector: Collector) -> None:
    logs = "".join(worker.process.output() for worker in cluster.workers)
    assert SECRET not in logs
    assert "sk-of-the-provider" not in logs
    sent = repr(collector.spans)
    assert SECRET not in sent
    assert "sk-of-the-provider" not in sent
    assert SECRET not in repr(LangfuseTracer(PUBLIC, SECRET))
