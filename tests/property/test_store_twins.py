"""The run store in Redis and the one in memory are the same machine: every step of random runs agrees."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graflow_celery.celery_backend.app import create_app
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.commands import DispatchNode, OpenGroup, from_text, to_text
from graflow_celery.core.state import STALE, Applied, Leave, NodeRecord, NodeState, RunState
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.memory_backend.channel import MemoryChannel
from graflow_celery.memory_backend.run_store import MemoryRunStore
from graflow_celery.ports import Attempt, EventRecord, NodeReport, RunRef
from graflow_celery.redis_backend.events import EventReader
from graflow_celery.settings import Settings
from tests.property.driver import Begin, Driver, Step
from tests.property.shapes import Task, Workflow, build, workflows


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with EmbeddedServer() as server:
        chosen = Settings(redis_url=server.url)
        yield Runtime(create_app(chosen), chosen)


class Twin:
    """Does in Redis what the driver does in memory, and compares what each answers."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.store = runtime.store
        self.run = RunRef(uuid.uuid4().hex[:16], "graph")
        self.memory = MemoryRunStore(MemoryChannel({}), clock=lambda: 0.0)

    def follow(self, step: Step, said: Leave | Applied | None, state: RunState) -> None:
        answer = self.begin(step) if isinstance(step, Begin) else self.commit(step)
        assert answer == said, f"{step}: redis {answer}, memory {said}"

    def begin(self, step: Begin) -> Leave | None:
        attempt = Attempt(self.run, step.plan, step.node, step.attempt, step.worker, step.worker)
        begun = self.store.begin(attempt, step.scopes, [])
        self.memory.begin(attempt, step.scopes, [])
        return None if begun is None else begun.leave

    def commit(self, step: Step) -> Applied:
        assert not isinstance(step, Begin)
        self.memory.commit(self.run, step)
        if step.event == "run_submitted":
            return self.store.create(self.run, step, {"workflow": "random", "tasks": 1})
        return self.store.commit(self.run, step)

    def compare(self, state: RunState) -> None:
        """What is left in the end."""
        details = self.store.details(self.run.id)
        assert details["status"] == state.status
        assert details.get("reason", "") == state.reason
        assert int(details["outstanding"]) == state.outstanding
        assert int(details.get("ended", 0)) == state.ended
        assert int(details.get("steps", 0)) == state.steps
        assert details.get("last_node") == state.last_node
        assert (details.get("failed_node") or None) == state.failed_node
        keys = list(state.nodes)
        found = dict(zip(keys, self.store.reports(self.run, keys), strict=True))
        for key, record in state.nodes.items():
            assert as_record(found[key]) == record, key
        names = self.runtime.client.hkeys(self.runtime.keys.run(self.run.id).nodes)
        assert {name.decode() for name in names} == set(keys)
        if not state.status.is_terminal:
            self.compare_outbox(state, float(details["started"]) / 1000)
        self.compare_watch(state)
        self.compare_events()

    def compare_events(self) -> None:
        """The same events in the same order, with the same fields but for times."""
        reader = EventReader(self.runtime.client, self.runtime.keys.run(self.run.id).events)
        assert [told(record) for record in reader.history()] == [told(record) for record in self.memory.events]

    def compare_outbox(self, state: RunState, started: float) -> None:
        """The same commands, each due when its delay is over, and a grace later what a worker is sent."""
        key, grace = self.runtime.keys.run(self.run.id).outbox, self.runtime.settings.dispatch_grace
        found = self.runtime.client.zrange(key, 0, -1, withscores=True)
        assert {text.decode() for text, _ in found} == {to_text(command) for command in state.outbox}
        for text, score in found:
            emission = state.outbox[from_text(text.decode())]
            sent = not emission.delay or isinstance(emission.command, DispatchNode | OpenGroup)
            queued = score / 1000 - emission.delay - (grace if sent else 0)
            assert started <= queued < started + 60, f"{text} is due at another time"

    def compare_watch(self, state: RunState) -> None:
        """The monitor looks at all that is queued or runs; nothing tells of first members that have no record yet."""
        found = self.runtime.client.zrange(self.runtime.keys.run(self.run.id).watch, 0, -1)
        waits = {key for key, record in state.nodes.items() if record.state in (NodeState.QUEUED, NodeState.RUNNING)}
        assert {key.decode() for key in found} == (set() if state.status.is_terminal else waits)


def told(record: EventRecord) -> dict[str, Any]:
    """An event without its times; a field that says nothing is as good as none."""
    return {name: value for name, value in record.items() if value and name not in ("at", "duration")}


def as_record(report: NodeReport | None) -> NodeRecord | None:
    if report is None:
        return None
    return NodeRecord(
        report.state, report.attempt, report.losses, report.retries, report.cycle, report.graph, report.holder
    )


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(workflows(timeouts=True), st.integers(0, 2**32), st.integers(-40, 40))
def test_redis_and_memory_agree_on_every_step(runtime: Runtime, workflow: Workflow, seed: int, cancel: int) -> None:
    twin = Twin(runtime)
    state = Driver(build(workflow), workflow, seed, twin.follow, cancel_after=cancel).run()
    twin.compare(state)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(workflows(timeouts=True), st.integers(0, 2**32), st.integers(1, 30))
def test_they_agree_in_the_middle_of_a_run(runtime: Runtime, workflow: Workflow, seed: int, steps: int) -> None:
    twin = Twin(runtime)
    driver = Driver(build(workflow), workflow, seed, twin.follow)
    for _ in range(steps):
        driver.step()
    twin.compare(driver.state)


def test_a_twin_that_differs_is_noticed(runtime: Runtime) -> None:
    workflow = Workflow({"start": Task("start")}, {"start": []})
    twin = Twin(runtime)
    with pytest.raises(AssertionError, match=r"redis .*, memory .*stale=True"):
        Driver(build(workflow), workflow, 0, lambda step, _, state: twin.follow(step, STALE, state)).run()
