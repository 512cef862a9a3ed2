"""The work of one message, on a real server: what is committed when, what goes on, what is handed on.

The clock is ours.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from graflow_celery.celery_backend.app import create_app
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.commands import DispatchNode
from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.events import CancelRequested, NodeReturned, RunStarted
from graflow_celery.core.expr import ParallelGroup, SequentialTask
from graflow_celery.core.lower import lower
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import Applied, NodeState
from graflow_celery.core.task import TaskWrapper, task
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.engine.context import ExecutionContext
from graflow_celery.engine.known import Knowledge
from graflow_celery.engine.node import Host, NodeCode
from graflow_celery.engine.runner import Engine
from graflow_celery.engine.shift import FRESH, LONG, Shift
from graflow_celery.errors import CodeNotFoundError
from graflow_celery.memory_backend.channel import MemoryChannel
from graflow_celery.ports import Attempt, Members, Outcome, RunRef, Step
from graflow_celery.redis_backend.events import EventReader
from graflow_celery.settings import Settings
from tests.unit.engine.world import Outbox, Plans

HOLDER, WORKER = "worker#1", "worker"
QUICK = 0.0001


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with EmbeddedServer() as server:
        chosen = Settings(redis_url=server.url)
        yield Runtime(create_app(chosen), chosen)


class Bench:
    """A run that has started, a shift for it, and terms that say what a test has them say. A body may take time."""

    def __init__(self, runtime: Runtime, plan: Plan, codes: dict[str, TaskWrapper], **limits: int) -> None:
        self.runtime, self.plan, self.codes = runtime, plan, codes
        self.store = runtime.store
        self.run = RunRef(uuid.uuid4().hex[:16], "0" * 32)
        self.outbox = Outbox()
        self.engine = Engine(self.store, self.outbox, Plans(plan))
        self.now = 0.0
        self.expects: dict[str, float] = dict.fromkeys(codes, QUICK)
        self.held: list[tuple[list[str], Members | None]] = []
        self.shared: list[Members] = []
        self.asked: list[list[str]] = []
        self.began: list[tuple[str, float]] = []
        self.fuses = True
        started = self.engine.scheduler.decide(plan, RunStarted())
        self.store.create(self.run, started, {"workflow": "w", "tasks": 1, **limits})
        knowledge = Knowledge()
        knowledge.loaded |= set(codes)
        self.shift = Shift(
            self.engine, self, self.run, plan, WORKER, HOLDER, self, lambda: self.now, threading.RLock(), knowledge
        )

    # ---------------------------------------------------------------------- the store, which notes what it is asked

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["runtime"].store, name)

    def advance(self, run: RunRef, taken: Sequence[Step]) -> Any:
        self.asked.append([_named(step) for step in taken])
        return self.store.advance(run, taken)

    # ---------------------------------------------------------------------- the terms

    def host(self, plan: Plan, node: str) -> Host:
        context = ExecutionContext(self.run, plan, self.store, MemoryChannel())
        return Host(context, lambda: self.load(node), lambda routine: (None, None), lambda: self.now, lambda: 0.5)

    def load(self, node: str) -> NodeCode:
        if node not in self.codes:
            raise CodeNotFoundError(node, "it is not there")
        return NodeCode.of(self.codes[node])

    def kind(self, plan: Plan, node: str) -> str:
        return node

    def expected(self, kind: str) -> float | None:
        return self.expects.get(kind)

    def took(self, kind: str, seconds: float) -> None: ...

    def goes_on(self, plan: Plan, node: str) -> bool:
        return self.fuses

    def opens(self, plan: Plan, group: str) -> bool:
        return False

    def closes(self, plan: Plan, group: str) -> bool:
        return True

    def judge(self, plan: Plan, group: str) -> Applied:
        return self.engine.judge(self.run, plan, group)

    def commits_late(self) -> bool:
        return True

    def share(self, plan: Plan, members: Members) -> None:
        self.shared.append(members)

    def holds(self, attempts: Sequence[Attempt], rest: Members | None) -> None:
        self.held.append(([attempt.node for attempt in attempts], rest))

    @contextmanager
    def begins(self, attempt: Attempt) -> Iterator[None]:
        self.began.append((attempt.node, self.now))
        yield

    # ---------------------------------------------------------------------- what came of it

    def events(self, name: str) -> list[str]:
        history = EventReader(self.runtime.client, self.runtime.keys.run(self.run.id).events).history()
        return [str(record["node"]) for record in history if record["event"] == name]

    def state(self, node: str) -> tuple[NodeState, int] | None:
        [report] = self.store.reports(self.run, [node])
        return None if report is None else (report.state, report.attempt)

    @property
    def ran(self) -> list[str]:
        return [node for node, _ in self.began]


def _named(step: Any) -> str:
    return f"?{step.attempt.node}" if hasattr(step, "attempt") else f"!{step.transition.node}"


Body = Callable[["Bench"], Any]


def nothing(bench: Bench) -> None:
    return None


def bench_of(runtime: Runtime, names: Sequence[str], bodies: dict[str, Body], *, chain: bool, **limits: int) -> Bench:
    """A chain, or a group ``g``, of tasks that have these bodies."""
    made: list[Bench] = []

    def wrapped(name: str) -> TaskWrapper:
        return task(name)(lambda: bodies.get(name, nothing)(made[0]))

    codes = {name: wrapped(name) for name in names}
    with WorkflowDefinition("w") as wf:
        wf.add(SequentialTask(list(codes.values())) if chain else ParallelGroup(list(codes.values()), name="g"))
    made.append(Bench(runtime, lower(wf.graph, "w"), codes, **limits))
    return made[0]


def passes(seconds: float) -> Body:
    def body(bench: Bench) -> None:
        bench.now += seconds

    return body


def members(bench: Bench) -> Members:
    return Members("g", 0, len(bench.codes))


LETTERS = list("abcdef")


def test_a_quick_chain_takes_two_round_trips(runtime: Runtime) -> None:
    bench = bench_of(runtime, LETTERS, {}, chain=True)
    bench.shift.run_node("a", 1)
    assert bench.ran == LETTERS
    assert bench.asked[0] == ["?a"]
    assert bench.asked[1] == ["!a", "?b", "!b", "?c", "!c", "?d", "!d", "?e", "!e", "?f", "!f"]
    assert len(bench.asked) == 2
    assert bench.events("node_succeeded") == LETTERS
    assert bench.store.details(bench.run.id)["status"] == "succeeded"
    assert bench.outbox.sent == []


def test_what_is_not_known_to_be_quick_waits_for_the_commit(runtime: Runtime) -> None:
    bench = bench_of(runtime, LETTERS[:3], {}, chain=True)
    bench.expects = {"a": QUICK, "c": QUICK}
    bench.shift.run_node("a", 1)
    assert bench.asked[:2] == [["?a"], ["!a", "?b"]]
    assert bench.events("node_succeeded") == LETTERS[:3]


def test_what_was_done_is_committed_before_code_is_loaded_that_may_kill(runtime: Runtime) -> None:
    bench = bench_of(runtime, LETTERS[:3], {}, chain=True)
    bench.shift.knowledge.loaded.clear()
    bench.shift.run_node("a", 1)
    assert bench.asked == [["?a"], ["!a"], ["?b"], ["!b"], ["?c"], ["!c"]]


def test_nothing_counts_of_what_follows_from_an_attempt_that_was_replaced(runtime: Runtime) -> None:
    """It is taken from its worker while it runs; the next ones were run because it was taken for granted."""

    def replaced(bench: Bench) -> None:
        bench.engine.deliver(bench.run, bench.plan, NodeReturned("a", 1, "taken away", HOLDER), Outcome())

    bench = bench_of(runtime, LETTERS[:3], {"a": replaced}, chain=True)
    bench.shift.run_node("a", 1)
    assert bench.state("a") == (NodeState.QUEUED, 2)
    assert (bench.state("b"), bench.state("c")) == (None, None)
    assert bench.events("node_succeeded") == []
    assert [command for command, _ in bench.outbox.sent] == [DispatchNode("a", 2)]


def test_a_run_takes_as_many_steps_as_it_may(runtime: Runtime) -> None:
    bench = bench_of(runtime, LETTERS, {}, chain=True, max_steps=3)
    bench.shift.run_node("a", 1)
    assert bench.ran == ["a", "b", "c"]
    assert bench.store.details(bench.run.id)["status"] == "terminated"


def test_a_cancelled_run_begins_nothing_when_what_it_had_leave_for_is_old(runtime: Runtime) -> None:
    at: list[float] = []

    def cancels(bench: Bench) -> None:
        bench.engine.end(bench.run, CancelRequested("enough"))
        at.append(bench.now)

    bodies: dict[str, Body] = {name: passes(FRESH / 4) for name in "abcdefghijkl"} | {"b": cancels}
    bench = bench_of(runtime, list(bodies), bodies, chain=True)
    bench.shift.run_node("a", 1)
    assert "b" in bench.ran
    assert all(began - at[0] <= FRESH for node, began in bench.began if node > "b")
    assert len(bench.ran) < len(bodies)
    assert bench.store.details(bench.run.id)["status"] == "cancelled"


def test_every_member_that_is_not_done_is_held(runtime: Runtime) -> None:
    """Else it would be missed only much later, if the process died."""
    names = [f"m{number}" for number in range(40)]
    bench = bench_of(runtime, names, {name: passes(0.004) for name in names}, chain=False)
    bench.expects = dict.fromkeys(names, 0.004)
    bench.shift.run_members(members(bench))
    for granted, rest in bench.held[:-1]:
        numbers = [int(node[1:]) for node in granted]
        numbers += range(rest.first, rest.first + rest.count) if rest is not None else ()
        assert numbers == list(range(numbers[0], len(names))) if numbers else rest is None
    assert bench.events("node_succeeded") == names


def test_relieve_commits_what_was_done_hands_on_the_rest_and_gives_back_what_had_leave(runtime: Runtime) -> None:
    seen: list[list[str]] = []

    def slow(bench: Bench) -> None:
        bench.now += 2 * LONG
        assert bench.shift.busy > LONG
        bench.shift.relieve()
        seen.append(bench.events("node_succeeded"))

    names = [f"m{number}" for number in range(400)]
    bench = bench_of(runtime, names, {"m3": slow}, chain=False)
    bench.shift.run_members(members(bench))
    assert seen == [["m0", "m1", "m2"]], "committed while the slow one runs"
    assert bench.state("m3") == (NodeState.SUCCEEDED, 1)
    [shared] = bench.shared
    assert (shared.first, shared.count) == (4, len(names) - 4), "what had leave goes with the rest, in one message"
    returned = bench.events("node_queued")
    assert returned == [f"m{number}" for number in range(4, 4 + len(returned))] != []
    assert bench.events("node_returned") == []
    assert {bench.state(node) for node in returned} == {(NodeState.QUEUED, 1)}, "as if it had never begun"
    assert bench.store.details(bench.run.id)["steps"] == "4"
    assert bench.outbox.sent == []
    assert bench.held[-1][1] is None


def test_relieve_does_nothing_for_an_attempt_that_is_alone(runtime: Runtime) -> None:
    bench = bench_of(runtime, ["a"], {"a": lambda bench: bench.shift.relieve()}, chain=True)
    bench.shift.run_node("a", 1)
    assert bench.asked == [["?a"], ["!a"]]


def test_what_was_done_is_kept_when_code_ends_the_process(runtime: Runtime) -> None:
    def ends(bench: Bench) -> None:
        raise SystemExit(3)

    bench = bench_of(runtime, LETTERS, {"d": ends}, chain=False)
    with pytest.raises(SystemExit):
        bench.shift.run_members(members(bench))
    assert bench.events("node_succeeded") == ["a", "b", "c"]
    assert bench.state("d") == (NodeState.RUNNING, 1)


def test_code_that_cannot_be_loaded_fails_its_own_node(runtime: Runtime) -> None:
    bench = bench_of(runtime, LETTERS, {}, chain=False)
    del bench.codes["c"]
    bench.shift.run_members(Members("g", 0, len(LETTERS)))
    assert bench.events("node_succeeded") == ["a", "b", "d", "e", "f"]
    assert bench.events("node_failed") == ["c"]
    error = bench.store.error(bench.run, "c")
    assert isinstance(error, CodeNotFoundError)


def test_the_last_member_closes_the_group(runtime: Runtime) -> None:
    bench = bench_of(runtime, LETTERS, {}, chain=False)
    bench.shift.run_members(members(bench))
    assert bench.events("group_succeeded") == ["g"]
    assert bench.store.details(bench.run.id)["status"] == "succeeded"
