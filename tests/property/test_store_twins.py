"""The run store in Redis and the one in memory are the same machine: every step of random runs agrees."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graflow_celery.celery_backend.app import create_app
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.state import Applied, RunState, RunStatus, Transition
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.ports import RunRef
from graflow_celery.settings import Settings
from tests.property.driver import Driver
from tests.property.shapes import Workflow, build, model, workflows

Step = tuple[Transition, Applied, RunStatus]


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with EmbeddedServer() as server:
        chosen = Settings(redis_url=server.url)
        yield Runtime(create_app(chosen), chosen)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(workflows(), st.integers(0, 2**32))
def test_redis_and_memory_agree_on_every_step(runtime: Runtime, workflow: Workflow, seed: int) -> None:
    expected = model(workflow)
    plan = build(workflow)
    run = RunRef(uuid.uuid4().hex[:16], "graph")
    disagreements: list[str] = []

    def compare(transition: Transition, applied: Applied, state: RunState) -> None:
        if transition.event == "run_started":
            answer = runtime.store.create(run, transition, {"workflow": plan.name, "tasks": 1})
        else:
            answer = runtime.store.commit(run, transition)
        if answer != applied:
            disagreements.append(f"{transition}: redis {answer}, memory {applied}")

    state = Driver(plan, expected.succeeds, seed, compare).run()
    assert not disagreements, disagreements[0]
    details = runtime.store.details(run.id)
    assert details["status"] == state.status
    assert details["reason" if state.reason else "status"] == (state.reason or state.status)
    for node, report in zip(plan.nodes, runtime.store.reports(run, list(plan.nodes)), strict=True):
        record = state.nodes.get(node)
        if record is not None and record.state.is_final:
            assert report is not None
            assert (report.state, report.attempt) == (record.state, record.attempt)
