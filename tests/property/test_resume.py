"""A run that is cut anywhere and resumed comes to the same end as one that was not; nothing that ended runs again."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from graflow_celery.celery_backend.app import create_app
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.commands import ExpireFeedback
from graflow_celery.core.place import Place
from graflow_celery.core.resume import Asked, pending
from graflow_celery.core.state import NodeState, RunState, RunStatus
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.ports import RunRef, Snapshot
from graflow_celery.settings import Settings
from tests.property.driver import Driver, _Answer
from tests.property.model import model
from tests.property.shapes import Workflow, build, workflows
from tests.property.test_store_twins import Twin


def ignore(*_: object) -> None: ...


class Resumed(Driver):
    """Goes on from where another driver was cut. Messages, code that ran and timers of that one are gone."""

    def __init__(self, cut: Driver, workflow: Workflow, seed: int) -> None:
        super().__init__(cut.base, workflow, seed, ignore)
        self.specs, self._plans = dict(cut.specs), dict(cut._plans)
        self._played.update(cut._played)
        asked = [
            Asked(command.node, command.attempt, command.request, 1.0)
            for command in cut.state.outbox
            if isinstance(command, ExpireFeedback)
        ]
        self.state, emissions = pending(cut.state, self._plans.__getitem__, asked)
        self.state.check()
        answers = [item for item in cut._pending if isinstance(item, _Answer)]
        self._pending = [*(emission.command for emission in emissions), *answers]
        self.log = list(cut.log)


def cut_run(workflow: Workflow, seed: int, steps: int) -> Driver:
    driver = Driver(build(workflow), workflow, seed, ignore)
    for _ in range(steps):
        if not driver.step():
            break
    return driver


@settings(max_examples=100, deadline=None)
@given(workflows(), st.integers(0, 2**32), st.integers(1, 120))
def test_a_cut_run_comes_to_the_same_end(workflow: Workflow, seed: int, steps: int) -> None:
    expected = model(workflow)
    first = cut_run(workflow, seed, steps)
    before = first.state.copy()
    ended = {key for key, record in before.nodes.items() if record.state.is_final}
    event("cut at its end" if before.status.is_terminal else "cut in its middle")
    second = Resumed(first, workflow, seed + 1)
    state = second.run()
    assert before == first.state, "resuming changes nothing of what is resumed"
    # The last task of a member that jumped back leaves the outcome of a later pass where the barrier looks for it.
    mirrors = {Place.of(plan, key).mirror for plan in second._plans.values() for key in state.nodes if key in plan}
    assert all(state.nodes[key] == before.nodes[key] for key in ended - mirrors), "what had ended changed"
    if expected.fails:
        assert state.status is RunStatus.FAILED
    else:
        assert state.status is RunStatus.SUCCEEDED, f"{state.status}, waiting for {list(state.outbox)}"
        assert first.ran + second.ran == expected.ran, "each act was played once"
        assert first.skipped + second.skipped == expected.skipped


@settings(max_examples=60, deadline=None)
@given(workflows(timeouts=True), st.integers(0, 2**32), st.integers(1, 120))
def test_with_groups_whose_time_is_up_at_any_moment(workflow: Workflow, seed: int, steps: int) -> None:
    state = Resumed(cut_run(workflow, seed, steps), workflow, seed + 1).run()
    assert state.status in (RunStatus.SUCCEEDED, RunStatus.FAILED), f"waiting for {list(state.outbox)}"


@settings(max_examples=60, deadline=None)
@given(workflows(timeouts=True), st.integers(0, 2**32), st.integers(1, 120))
def test_resuming_twice_asks_for_the_same(workflow: Workflow, seed: int, steps: int) -> None:
    """A checkpoint that is taken right after a resume leads to where the first one leads."""
    first = cut_run(workflow, seed, steps)
    once, emissions = pending(first.state, first._plans.__getitem__)
    again, repeated = pending(once, first._plans.__getitem__)
    assert once == again
    assert set(emissions) == set(repeated)
    assert len(emissions) == len(set(emissions))
    waits = any(record.state is NodeState.WAITING for record in once.nodes.values())
    assert once.status.is_terminal or emissions or waits, "a run that goes on has something to do"


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with EmbeddedServer() as server:
        chosen = Settings(redis_url=server.url)
        yield Runtime(create_app(chosen), chosen)


def comparable(state: RunState) -> RunState:
    """Without what only one of the two stores notes: counts of zero, and what an outbox knows besides its commands."""
    outbox = {
        command: replace(item, command=command, weight=0, delay=0.0, reenters="", members=0)
        for command, item in sorted(state.outbox.items(), key=lambda item: repr(item[0]))
    }
    counts = {key: count for key, count in state.counts.items() if count}
    return replace(state.copy(), counts=counts, outbox=outbox)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(workflows(timeouts=True), st.integers(0, 2**32), st.integers(1, 120))
def test_a_run_in_redis_is_read_and_put_back_as_it_is_in_memory(
    runtime: Runtime, workflow: Workflow, seed: int, steps: int
) -> None:
    twin = Twin(runtime)
    driver = Driver(build(workflow), workflow, seed, twin.follow)
    for _ in range(steps):
        if not driver.step():
            break
    found = runtime.snapshots.snapshot(twin.run)
    expected = comparable(driver.state)
    assert comparable(found.state) == expected
    again = RunRef(uuid.uuid4().hex[:16], "graph")
    runtime.snapshots.restore(again, found, {"workflow": "random", "tasks": 1, "resumed_from": twin.run.id})
    assert comparable(runtime.snapshots.snapshot(again).state) == expected
    keys = list(runtime.client.scan_iter(f"*{{{again.id}}}*"))
    assert keys
    assert all(runtime.client.ttl(key) > 0 for key in keys), "a key without a time to live"
    assert (runtime.client.zscore(runtime.keys.active, again.id) is None) == found.state.status.is_terminal


def test_values_come_back_from_redis_too(runtime: Runtime) -> None:
    run = RunRef(uuid.uuid4().hex[:16], "graph")
    large = bytes(range(256)) * 1000
    state = RunState(outstanding=1, steps=3, max_steps=9, jumps={"g": ("a", "b")}, counts={"late": 1, "late:g": 1})
    kept = Snapshot(
        state,
        {"a": large, "b": {1, 2}},
        {"c": ValueError("no")},
        {"n": 2.5, "l": [1, {"x": None}], "t": "text", "short": 1},
        {"m[0]": 7},
        [],
        {"l": 3600.0, "short": 0.001},
    )
    runtime.snapshots.restore(run, kept, {"workflow": "values", "tasks": 1})
    found = runtime.snapshots.snapshot(run)
    assert comparable(found.state) == comparable(state)
    assert found.results == kept.results
    assert {name: (type(error), str(error)) for name, error in found.errors.items()} == {"c": (ValueError, "no")}
    assert found.inputs == kept.inputs
    assert {key: value for key, value in found.channel.items() if key != "short"} == {
        "n": 2.5,
        "l": [1, {"x": None}],
        "t": "text",
    }
    assert 3590 < found.ttls["l"] <= 3600
