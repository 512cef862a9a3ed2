"""Transcripts of another attempt of the same activation: retries, iterations, losses, and waiting for a person."""

from __future__ import annotations

import pytest

from graflow_celery.core.commands import CloseBarrier, DispatchNode, ExpireFeedback
from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.events import (
    BarrierReached,
    CancelRequested,
    FeedbackAnswered,
    FeedbackExpired,
    FeedbackRequested,
    NodeFailed,
    NodeIterated,
    NodeSucceeded,
)
from graflow_celery.core.plan import Plan
from graflow_celery.core.retry import RetryPolicy
from graflow_celery.core.state import Leave, NodeState, RunStatus
from graflow_celery.errors import ConfigError
from tests.unit.core.transcript import Transcript, new, plan_of, tasks

BACKOFF = RetryPolicy(max_retries=3, initial_interval=2.0, backoff_factor=3.0, max_interval=10.0)


def alone(**options: object) -> Plan:
    with WorkflowDefinition("w") as wf:
        new("a", **options) >> new("b")
    return plan_of(wf)


def asking(run: Transcript, node: str = "a", attempt: int = 1, timeout: float | None = 30.0) -> list[object]:
    assert run.begin(node, attempt) is not None
    applied = run.apply(FeedbackRequested(node, attempt, "q1", timeout))
    assert not applied.ended_node
    return [(emission.command, emission.delay, emission.weight) for emission in applied.emissions]


def test_a_retry_waits_longer_each_time_up_to_its_limit() -> None:
    run = Transcript.started(alone(retry_policy=BACKOFF))
    delays = []
    for retries in range(3):
        applied = run.apply(NodeFailed("a", retries + 1, "boom", retries=retries))
        assert [emission.command for emission in applied.emissions] == [DispatchNode("a", retries + 2)]
        delays += [emission.delay for emission in applied.emissions]
        assert run.state.nodes["a"].retries == retries + 1
    assert delays == [2.0, 6.0, 10.0]
    run.feed(NodeFailed("a", 4, "boom", retries=3))
    assert run.state.status is RunStatus.FAILED


@pytest.mark.parametrize(("jitter", "delay"), [(0.0, 1.0), (0.5, 2.0), (0.75, 2.5)])
def test_chance_comes_with_the_event(jitter: float, delay: float) -> None:
    run = Transcript.started(alone(retry_policy=RetryPolicy(1, 2.0, jitter=True)))
    [emission] = run.apply(NodeFailed("a", 1, "boom", jitter=jitter)).emissions
    assert emission.delay == delay


def test_without_a_policy_a_retry_is_due_at_once() -> None:
    run = Transcript.started(alone(max_retries=1))
    [emission] = run.apply(NodeFailed("a", 1, "boom", jitter=0.9)).emissions
    assert emission.delay == 0.0


@pytest.mark.parametrize("fields", [{"initial_interval": -1.0}, {"backoff_factor": 0.5}, {"max_retries": -1}])
def test_a_policy_that_cannot_be_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"RetryPolicy: {next(iter(fields))}="):
        RetryPolicy(**fields)  # type: ignore[arg-type]


def test_the_record_tells_the_next_attempt_of_its_retries() -> None:
    run = Transcript.started(alone(max_retries=2))
    run.begin("a", 1)
    run.feed(NodeFailed("a", 1, "boom"))
    assert run.begin("a", 2) == Leave(retries=1)


def test_an_iteration_is_the_next_attempt_and_the_successors_wait() -> None:
    run = Transcript.started(alone())
    assert run.feed(NodeIterated("a", 1)) == [DispatchNode("a", 2)]
    assert run.begin("a", 2) == Leave(cycle=1)
    assert run.apply(NodeSucceeded("a", 1)).stale
    assert run.feed(NodeIterated("a", 2)) == [DispatchNode("a", 3)]
    assert run.begin("a", 3) == Leave(cycle=2)
    assert run.feed(NodeSucceeded("a", 3)) == [DispatchNode("b", 1)]


def test_an_iteration_told_twice_is_one() -> None:
    run = Transcript.started(alone())
    run.feed(NodeIterated("a", 1))
    assert run.apply(NodeIterated("a", 1)).stale
    assert run.state.nodes["a"].cycle == 1


def test_a_member_that_iterates_arrives_at_the_barrier_when_it_is_done() -> None:
    a, b = tasks("ab")
    with WorkflowDefinition("w") as wf:
        (a | b).set_group_name("g")
    run = Transcript.started(plan_of(wf))
    run.succeed("b")
    assert not run.apply(NodeIterated("a", 1)).ended_node
    assert run.feed(NodeSucceeded("a", 2)) == [CloseBarrier("g")]


def test_a_task_that_asks_waits_with_a_time_limit() -> None:
    run = Transcript.started(alone())
    assert asking(run) == [(ExpireFeedback("a", 2, "q1"), 30.0, 0)]
    assert run.state.nodes["a"].state is NodeState.WAITING
    assert run.begin("a", 2) is None, "it runs when it is answered"
    assert run.begin("a", 1) is None


def test_without_a_time_limit_nothing_will_expire() -> None:
    assert asking(Transcript.started(alone()), timeout=None) == []


def test_an_answer_runs_the_task_again_and_the_timer_is_put_away() -> None:
    run = Transcript.started(alone())
    asking(run)
    assert run.feed(FeedbackAnswered("a", 2, "q1")) == [DispatchNode("a", 3)]
    assert list(run.state.outbox) == [DispatchNode("a", 1), DispatchNode("a", 3)]
    assert run.state.status is RunStatus.RUNNING
    assert run.feed(NodeSucceeded("a", 3)) == [DispatchNode("b", 1)]


def test_the_first_of_two_answers_counts() -> None:
    run = Transcript.started(alone())
    asking(run)
    run.feed(FeedbackAnswered("a", 2, "q1"))
    assert run.apply(FeedbackAnswered("a", 2, "q1")).stale
    assert run.apply(FeedbackExpired("a", 2, "q1")).stale


def test_nobody_answers_and_the_run_waits_until_somebody_does() -> None:
    run = Transcript.started(alone())
    asking(run)
    assert run.feed(FeedbackExpired("a", 2, "q1")) == []
    assert run.state.status is RunStatus.WAITING
    assert ExpireFeedback("a", 2, "q1") not in run.state.outbox, "it is told once"
    assert not run.state.status.is_terminal
    assert run.feed(FeedbackAnswered("a", 2, "q1")) == [DispatchNode("a", 3)]
    assert run.apply(NodeSucceeded("a", 3)).status is RunStatus.RUNNING


def test_a_run_waits_as_long_as_one_of_its_tasks_does() -> None:
    start, a, b = tasks(["start", "a", "b"])
    with WorkflowDefinition("w") as wf:
        start >> a
        start >> b
    run = Transcript.started(plan_of(wf))
    run.succeed("start")
    for node in "ab":
        asking(run, node)
        run.feed(FeedbackExpired(node, 2, "q1"))
    run.feed(FeedbackExpired("a", 2, "q1"))
    run.feed(FeedbackAnswered("a", 2, "q1"))
    assert run.state.status is RunStatus.WAITING, "b is not answered"
    run.feed(NodeSucceeded("a", 3))
    assert run.state.status is RunStatus.WAITING
    assert run.apply(FeedbackAnswered("b", 2, "q1")).status is RunStatus.RUNNING


def test_what_others_do_goes_on_while_one_waits() -> None:
    start, a, b, c = tasks(["start", "a", "b", "c"])
    with WorkflowDefinition("w") as wf:
        start >> a
        start >> b >> c
    run = Transcript.started(plan_of(wf))
    run.succeed("start")
    asking(run, "a")
    run.feed(FeedbackExpired("a", 2, "q1"))
    assert run.begin("b", 1) is not None
    assert run.succeed("b") == [DispatchNode("c", 1)]
    run.feed(NodeFailed("c", 1, "boom"))
    assert run.state.status is RunStatus.FAILED


def test_a_task_may_ask_again() -> None:
    run = Transcript.started(alone())
    asking(run)
    run.feed(FeedbackAnswered("a", 2, "q1"))
    assert asking(run, attempt=3) == [(ExpireFeedback("a", 4, "q1"), 30.0, 0)]
    assert run.feed(FeedbackAnswered("a", 4, "q1")) == [DispatchNode("a", 5)]


def test_a_waiting_run_can_be_cancelled() -> None:
    run = Transcript.started(alone())
    asking(run)
    run.feed(FeedbackExpired("a", 2, "q1"))
    run.feed(CancelRequested("enough"))
    assert run.state.status is RunStatus.CANCELLED
    assert run.apply(FeedbackAnswered("a", 2, "q1")).stale


def test_an_answer_for_a_group_that_has_closed_is_stale() -> None:
    a, b, c = tasks("abc")
    with WorkflowDefinition("w") as wf:
        (a | b).set_group_name("g").with_execution(policy="best_effort") >> c
    run = Transcript.started(plan_of(wf))
    asking(run)
    run.feed(BarrierReached("g", None))
    assert run.apply(FeedbackAnswered("a", 2, "q1")).stale
