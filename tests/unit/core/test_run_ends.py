"""Transcripts of how a run ends other than by having nothing left to do."""

from __future__ import annotations

import pytest

from graflow_celery.core.commands import DispatchNode, ExpireRun, OpenGroup
from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.events import (
    CancelRequested,
    Event,
    NodeSucceeded,
    RunAborted,
    RunCancelledByNode,
    RunExpired,
    RunStarted,
    RunTerminated,
    StepsExceeded,
)
from graflow_celery.core.plan import Plan
from graflow_celery.core.policy import FifoPolicy, PriorityPolicy, as_scheduling_policy
from graflow_celery.core.state import Leave, NodeState, RunState, RunStatus
from graflow_celery.errors import ConfigError
from tests.unit.core.transcript import Transcript, new, plan_of, tasks

ENDS: list[tuple[Event, RunStatus, str]] = [
    (CancelRequested("enough"), RunStatus.CANCELLED, "enough"),
    (RunAborted("graph lost"), RunStatus.FAILED, "graph lost"),
    (RunExpired(2.5), RunStatus.CANCELLED, "it did not end within 2.5 s"),
    (StepsExceeded(7), RunStatus.TERMINATED, "max_steps=7 was reached"),
    (RunTerminated("a", 1, "good enough"), RunStatus.TERMINATED, "good enough"),
    (RunCancelledByNode("a", 1, "no use"), RunStatus.CANCELLED, "no use"),
]


def fork() -> Plan:
    """a before b and c, which are members of a group that d follows."""
    a, b, c, d = tasks("abcd")
    with WorkflowDefinition("w") as wf:
        a >> (b | c).set_group_name("g") >> d
    return plan_of(wf)


@pytest.mark.parametrize(("event", "status", "reason"), ENDS)
def test_what_ends_a_run_at_once_ends_it_for_good(event: Event, status: RunStatus, reason: str) -> None:
    run = Transcript.started(fork())
    run.begin("a", 1)
    applied = run.apply(event)
    assert (applied.status, applied.emissions) == (status, ())
    assert run.state.reason.startswith(reason)
    assert not run.state.outbox
    assert run.begin("a", 1) is None
    for later, _, _ in ENDS:
        assert run.apply(later).stale
    assert run.state.status is status


def test_a_task_that_terminates_the_run_has_succeeded_and_one_that_cancels_it_has_failed() -> None:
    for event, state, last in (
        (RunTerminated("a", 1, "enough"), NodeState.SUCCEEDED, "a"),
        (RunCancelledByNode("a", 1, "enough"), NodeState.FAILED, None),
    ):
        run = Transcript.started(fork())
        assert run.apply(event).ended_node
        assert run.state.nodes["a"].state is state
        assert run.state.last_node == last
        assert run.state.failed_node == "a"
        assert run.state.arrivals == {}, "nobody after it is told"


def test_a_member_of_a_group_may_end_the_run_too() -> None:
    run = Transcript.started(fork())
    run.succeed("a", "b")
    run.feed(RunTerminated("c", 1, "enough"))
    assert run.state.status is RunStatus.TERMINATED
    assert run.state.arrivals["barrier:g"] == (1, 1), "its barrier will not close"


@pytest.mark.parametrize("event", [RunTerminated("a", 1, "late"), RunCancelledByNode("a", 1, "late")])
def test_an_attempt_that_counts_no_more_ends_no_run(event: Event) -> None:
    run = Transcript.started(fork())
    run.succeed("a")
    assert run.apply(event).stale
    assert run.state.status is RunStatus.RUNNING


def test_a_run_with_a_time_limit_starts_its_timer_with_its_first_node() -> None:
    applied = Transcript(fork()).apply(RunStarted(timeout=60.0))
    assert [(item.command, item.delay) for item in applied.emissions] == [
        (DispatchNode("a", 1), 0.0),
        (ExpireRun(60.0), 60.0),
    ]


def test_a_run_that_ends_in_time_leaves_no_timer_behind() -> None:
    (a,) = tasks("a")
    with WorkflowDefinition("w") as wf:
        wf.add(a)
    run = Transcript(plan_of(wf))
    run.feed(RunStarted(timeout=60.0))
    run.succeed("a")
    assert run.state.status is RunStatus.SUCCEEDED
    assert not run.state.outbox
    assert run.apply(RunExpired(60.0)).stale


def test_attempts_are_counted_up_to_max_steps_and_no_further() -> None:
    state = RunState(outstanding=1, max_steps=2)
    assert state.begin("a", 1) == Leave(left=1)
    assert state.begin("a", 1) is None, "no step: it does not run"
    assert state.begin("b", 1) == Leave(left=0)
    assert state.begin("c", 1) == Leave(max_steps=2)
    assert "c" not in state.nodes
    assert state.steps == 2


def test_the_end_by_steps_says_how_to_allow_more() -> None:
    run = Transcript.started(fork())
    run.feed(StepsExceeded(2))
    assert "execute(max_steps=...)" in run.state.reason


def test_an_outcome_that_ends_the_run_is_the_last_one_that_counts() -> None:
    a, b, c = tasks("abc")
    with WorkflowDefinition("w") as wf:
        a >> b
        a >> c
    run = Transcript.started(plan_of(wf))
    run.succeed("a", "b")
    applied = run.apply(NodeSucceeded("c", 1))
    assert (applied.status, applied.ended) == (RunStatus.SUCCEEDED, 3)
    assert run.apply(NodeSucceeded("b", 1)).stale


def test_scheduling_policies_rank_what_is_ready() -> None:
    a, b, c, d = tasks("ad", priority=1) + tasks("b", priority=9) + tasks("c")
    with WorkflowDefinition("w") as wf:
        (a | b | c | d).set_group_name("g")
    plan = plan_of(wf)
    ids = ["a", "b", "c", "d"]
    for policy, order in ((PriorityPolicy(), "badc"), (FifoPolicy(), "abcd")):
        assert sorted(ids, key=lambda node: policy.rank(plan[node])) == list(order)


def test_a_scheduling_policy_has_a_name_or_ranks_nodes_itself() -> None:
    class ByName:
        def rank(self, node: object) -> str:
            return str(node)

    mine = ByName()
    assert as_scheduling_policy(None) == as_scheduling_policy("fifo") == FifoPolicy()
    assert as_scheduling_policy("priority") == PriorityPolicy()
    assert as_scheduling_policy(mine) is mine
    for wrong in ("lottery", object()):
        with pytest.raises(ConfigError, match="Unknown scheduling policy"):
            as_scheduling_policy(wrong)  # type: ignore[arg-type]


def test_members_of_a_mapped_task_rank_as_the_task_does() -> None:
    with WorkflowDefinition("w") as wf:
        wf.add(new("m", priority=4).map(over="items"))
    plan = plan_of(wf)
    assert PriorityPolicy().rank(plan["m[7]"]) == PriorityPolicy().rank(plan["m"]) == -4
    assert Transcript(plan).feed(RunStarted()) == [OpenGroup("m")]
