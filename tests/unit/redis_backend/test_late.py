"""What the store hands out as late: to one caller at a time, when its time has come, or when somebody died."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from graflow_celery.celery_backend.app import create_app
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.commands import Command, DispatchNode, ExpireGroup, OpenGroup, to_text
from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.events import (
    CancelRequested,
    Event,
    FeedbackRequested,
    NodeFailed,
    NodeLost,
    NodeReturned,
    NodeSucceeded,
    RunStarted,
)
from graflow_celery.core.expr import ParallelGroup
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.core.retry import RetryPolicy
from graflow_celery.core.scheduler import Scheduler
from graflow_celery.core.state import Applied, NodeState
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.ports import Attempt, Late, RunRef
from graflow_celery.redis_backend.run_store import LOOK
from graflow_celery.settings import Settings
from tests.unit.core.transcript import new, plan_of

GRACE, PATIENCE = 2.0, 6.0
HOUR = RetryPolicy(max_retries=5, initial_interval=3600.0, max_interval=3600.0)


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def runtime(server: EmbeddedServer) -> Iterator[Runtime]:
    """With keys of its own."""
    chosen = Settings(redis_url=server.url, key_prefix=uuid.uuid4().hex[:8], dispatch_grace=GRACE)
    made = Runtime(create_app(chosen), chosen)
    yield made
    made.client.close()


def plan() -> Plan:
    with WorkflowDefinition("w") as wf:
        members = [new("a", retry_policy=HOUR), new("b")]
        new("first") >> ParallelGroup(members, name="g", timeout=60.0, policy="best_effort")
    return plan_of(wf)


@dataclass
class Started:
    """A run, and when which of its keys is due."""

    runtime: Runtime
    plan: Plan
    run: RunRef

    def tell(self, event: Event) -> Applied:
        return self.runtime.store.commit(self.run, Scheduler().decide(self.plan, event))

    def begin(self, node: str, attempt: int = 1) -> bool:
        asked = Attempt(self.run, self.plan, node, attempt, "w", "w#1")
        return self.runtime.store.begin(asked, Place.of(self.plan, node).scopes, []) is not None

    def look(self, *, sweep: bool = False) -> Late | None:
        """What is late of this run."""
        return next((item for item in list(self.runtime.store.late(sweep=sweep)) if item.run == self.run), None)

    def due(self, kind: str) -> dict[str, float]:
        """In how many seconds the parts of ``outbox`` or ``watch`` are due, or the runs of ``active``."""
        keys = self.runtime.keys
        key = keys.active if kind == "active" else getattr(keys.run(self.run.id), kind)
        now = self.runtime.liveness.now()
        return {name.decode(): at / 1000 - now for name, at in self.runtime.client.zrange(key, 0, -1, withscores=True)}

    def pass_time(self, seconds: float) -> None:
        """Moves all that is due forward, as if so much time had gone by."""
        keys = self.runtime.keys
        for key in (keys.active, keys.run(self.run.id).outbox, keys.run(self.run.id).watch):
            for name, at in self.runtime.client.zrange(key, 0, -1, withscores=True):
                self.runtime.client.zadd(key, {name: at - seconds * 1000})


def start(runtime: Runtime) -> Started:
    made = Started(runtime, plan(), RunRef(uuid.uuid4().hex[:16], "graph"))
    runtime.store.create(made.run, Scheduler().decide(made.plan, RunStarted()), {"workflow": "w", "tasks": 3})
    return made


def opened(runtime: Runtime) -> Started:
    """The group is open; what was to be sent is known to have been sent, but for the group."""
    made = start(runtime)
    made.begin("first")
    runtime.store.acknowledge(made.run, [DispatchNode("first", 1)])
    made.tell(NodeSucceeded("first", 1))
    return made


def soon(seconds: float) -> object:
    return pytest.approx(seconds, abs=1.0)


# ------------------------------------------------------------------------------------ when the monitor looks


def test_a_run_that_is_new_is_looked_at_after_the_grace(runtime: Runtime) -> None:
    run = start(runtime)
    assert run.due("active") == {run.run.id: soon(GRACE)}
    assert run.due("outbox") == {to_text(DispatchNode("first", 1)): soon(GRACE)}
    assert run.due("watch") == {"first": soon(PATIENCE)}
    assert run.look() is None
    assert runtime.store.next_look == soon(GRACE)


def test_hurry_never_moves_a_look_back(runtime: Runtime) -> None:
    run = start(runtime)
    runtime.store.hurry(run.run, 30.0)
    assert run.due("active") == {run.run.id: soon(GRACE)}
    runtime.store.hurry(run.run)
    assert run.due("active")[run.run.id] <= 0


def test_what_is_late_is_claimed_by_one_caller_and_moved_on(runtime: Runtime) -> None:
    run = start(runtime)
    run.pass_time(GRACE)
    late = run.look()
    assert late is not None
    assert (late.commands, late.nodes) == ([DispatchNode("first", 1)], {})
    assert run.due("outbox") == {to_text(DispatchNode("first", 1)): soon(GRACE)}
    runtime.store.hurry(run.run)
    assert run.look() is None
    run.pass_time(PATIENCE)
    again = run.look()
    assert again is not None
    record = again.nodes["first"]
    assert record is not None
    assert (record.state, record.attempt, record.holder) == (NodeState.QUEUED, 1, "")
    assert run.due("watch") == {"first": soon(PATIENCE)}


def test_the_next_look_is_when_something_is_due_and_at_the_latest_after_a_while(runtime: Runtime) -> None:
    run = opened(runtime)
    runtime.store.acknowledge(run.run, [OpenGroup("g")])
    run.pass_time(GRACE)
    run.look()
    assert run.due("active") == {run.run.id: soon(PATIENCE - GRACE)}
    runtime.store.forget(run.run, ["g"])
    runtime.store.hurry(run.run)
    run.look()
    assert run.due("active") == {run.run.id: soon(LOOK)}, "the timer is due in a minute"
    assert runtime.store.next_look == soon(LOOK)


def test_a_begun_attempt_is_looked_at_with_who_runs_it(runtime: Runtime) -> None:
    run = start(runtime)
    assert run.begin("first")
    assert not run.begin("first"), "an attempt begins once"
    run.pass_time(PATIENCE)
    late = run.look()
    assert late is not None
    record = late.nodes["first"]
    assert record is not None
    assert (record.state, record.worker, record.holder) == (NodeState.RUNNING, "w", "w#1")
    assert record.started == pytest.approx(runtime.liveness.now(), abs=1)


def test_what_is_well_is_looked_at_later_and_what_is_done_no_more(runtime: Runtime) -> None:
    run = opened(runtime)
    run.begin("a")
    run.begin("b")
    runtime.store.ease(run.run, ["a", "unknown"], 60.0)
    runtime.store.forget(run.run, ["g"])
    runtime.store.ease(run.run, [], 60.0)
    runtime.store.forget(run.run, [])
    assert run.due("watch") == {"a": soon(60.0), "b": soon(PATIENCE)}


def test_an_attempt_that_waits_for_a_person_is_not_looked_at(runtime: Runtime) -> None:
    run = opened(runtime)
    run.begin("a")
    run.tell(FeedbackRequested("a", 1, "q", None))
    assert run.due("watch").keys() == {"g"}


def test_a_run_without_anything_is_dropped(runtime: Runtime) -> None:
    assert list(runtime.store.late()) == []
    assert runtime.store.next_look is None
    runtime.store.hurry(RunRef("never was", "graph"))
    assert list(runtime.store.late()) == []
    assert runtime.store.active() == []


def test_a_run_that_ended_leaves_those_that_are_looked_at(runtime: Runtime) -> None:
    run, other = opened(runtime), start(runtime)
    run.tell(CancelRequested("enough"))
    assert run.due("active").keys() == {other.run.id}
    assert (run.due("watch"), run.due("outbox")) == ({}, {})
    runtime.store.hurry(run.run)
    assert run.look() is None
    assert run.due("active").keys() == {other.run.id}, "it came back by a report that was late"


# ------------------------------------------------------------------------------------ somebody died


def test_a_sweep_takes_what_may_have_been_lost_and_leaves_timers_alone(runtime: Runtime) -> None:
    run = opened(runtime)
    run.begin("a")
    assert run.look() is None
    late = run.look(sweep=True)
    assert late is not None
    assert late.commands == [OpenGroup("g")]
    assert late.nodes.keys() == {"a", "g"}
    assert run.due("outbox")[to_text(ExpireGroup("g"))] == soon(60.0)


def test_a_sweep_takes_a_timer_whose_time_has_come(runtime: Runtime) -> None:
    run = opened(runtime)
    run.pass_time(61.0)
    late = run.look(sweep=True)
    assert late is not None
    expected: list[Command] = [ExpireGroup("g"), OpenGroup("g")]
    assert sorted(late.commands, key=to_text) == sorted(expected, key=to_text)


def test_a_sweep_looks_at_what_was_vouched_for(runtime: Runtime) -> None:
    run = opened(runtime)
    run.begin("a")
    runtime.store.ease(run.run, ["a"], 60.0)
    late = run.look(sweep=True)
    assert late is not None
    assert "a" in late.nodes


def test_a_sweep_leaves_a_retry_alone_that_is_due_later(runtime: Runtime) -> None:
    run = opened(runtime)
    run.begin("a")
    run.tell(NodeFailed("a", 1, "boom"))
    late = run.look(sweep=True)
    assert late is not None
    assert late.commands == [OpenGroup("g")]
    assert late.nodes.keys() == {"g"}
    assert run.due("watch")["a"] == soon(3600.0 + PATIENCE)
    [record] = runtime.store.reports(run.run, ["a"])
    assert record is not None
    assert record.started == pytest.approx(runtime.liveness.now() + 3600.0, abs=1), "from when on it may begin"


def test_a_long_time_until_a_retry_does_not_hurry_the_run(runtime: Runtime) -> None:
    run = opened(runtime)
    run.begin("a")
    runtime.client.zadd(runtime.keys.active, {run.run.id: (runtime.liveness.now() + 9) * 1000})
    run.tell(NodeFailed("a", 1, "boom"))
    assert run.due("active") == {run.run.id: soon(9.0)}


def test_the_wait_after_a_second_loss_does(runtime: Runtime) -> None:
    run = opened(runtime)
    for attempt in (1, 2):
        run.begin("b", attempt)
        runtime.client.zadd(runtime.keys.active, {run.run.id: (runtime.liveness.now() + 9) * 1000})
        run.tell(NodeLost("b", attempt, attempt - 1, 3, "r", "w#1"))
    assert run.due("active") == {run.run.id: soon(1.0)}


# ------------------------------------------------------------------------------------ the fence


def test_an_attempt_is_taken_from_the_worker_that_runs_it_alone(runtime: Runtime) -> None:
    run = opened(runtime)
    run.begin("a")
    assert run.tell(NodeReturned("a", 1, "r")).stale
    assert run.tell(NodeReturned("a", 1, "r", "w#2")).stale
    assert run.tell(NodeLost("a", 1, 0, 3, "r", "w#2")).stale
    assert not run.tell(NodeLost("a", 1, 0, 3, "r", "w#1")).stale
    assert run.tell(NodeSucceeded("a", 1)).stale
    [record] = runtime.store.reports(run.run, ["a"])
    assert record is not None
    assert (record.state, record.attempt, record.losses, record.holder) == (NodeState.QUEUED, 2, 1, "")
    assert not run.begin("a")
    assert run.begin("a", 2)
    assert not run.tell(NodeSucceeded("a", 2)).stale


def test_a_first_member_without_a_record_is_returned_and_not_lost(runtime: Runtime) -> None:
    run = opened(runtime)
    assert run.tell(NodeLost("b", 1, 0, 3, "r", "w#1")).stale
    assert not run.tell(NodeReturned("b", 1, "r")).stale
    assert run.due("watch").keys() == {"b", "g"}
