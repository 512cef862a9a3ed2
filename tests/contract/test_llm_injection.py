"""LLM clients and agents reach the tasks that ask for them, the same in threads and on workers."""

from __future__ import annotations

import os
from typing import Any

import pytest

from graflow_celery import task, workflow
from graflow_celery.errors import LLMNotRegisteredError
from graflow_celery.testing import embedded_cluster


class Agent:
    def __init__(self, session: str = "") -> None:
        self.session = session
        self.asked = 0

    def run(self, text: str) -> dict[str, Any]:
        self.asked += 1
        return {"output": text.upper(), "asked": self.asked, "pid": os.getpid(), "session": self.session}


class Client:
    model = "fake"


@pytest.fixture(params=["local", "celery"], scope="module")
def how(request: Any) -> Any:
    if request.param == "local":
        yield {}
        return
    with embedded_cluster(workers=1, concurrency=1) as cluster:
        yield {"backend": "celery", "settings": cluster.settings, "timeout": 30}


def test_agents_are_made_once_and_clients_given(how: Any) -> None:
    with workflow("llm") as wf:
        wf.register_llm_agent("shared", Agent)
        wf.register_llm_agent("of_run", lambda context: Agent(context.session_id))
        wf.llm.register_client("default", Client)

        @task(inject_llm_agent="shared")
        def one(llm_agent: Agent) -> Any:
            return llm_agent.run("a")

        @task(inject_llm_agent="shared", inject_context=True)
        def two(context: Any, one: Any, llm_agent: Agent) -> Any:
            return {**llm_agent.run("b"), "same": context.get_llm_agent("shared") is llm_agent}

        @task(inject_llm_agent="of_run", inject_llm_client=True)
        def three(one: Any, two: Any, *, llm_client: Any, llm_agent: Agent) -> Any:
            return one, two, llm_agent.run("c"), llm_client.model

        one >> two >> three
    first, second, third, model = wf.execute(**how)
    assert (first["asked"], second["asked"]) == (1, 2)
    assert first["pid"] == second["pid"]
    assert second["same"]
    assert third["session"]
    assert model == "fake"
    assert wf.execute(**how)[0]["asked"] == 3


def test_an_agent_that_nobody_registered(how: Any) -> None:
    with workflow("llm2") as wf:

        @task(inject_llm_agent="nobody", max_retries=5)
        def ask(llm_agent: Any) -> Any: ...

    with pytest.raises(LLMNotRegisteredError, match="No LLM agent 'nobody'"):
        wf.execute(**how)
