"""Transcripts of the Scheduler: events in, commands out, no cluster and no sleep."""

from __future__ import annotations

import pytest

from graflow_celery.core.commands import CloseBarrier, Command, DispatchNode, OpenGroup, SkipNode, from_text, to_text
from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.events import (
    BarrierReached,
    CancelRequested,
    Event,
    NodeFailed,
    NodeSkipped,
    NodeSucceeded,
    RunAborted,
    RunStarted,
)
from graflow_celery.core.scheduler import Scheduler
from graflow_celery.core.state import Leave, NodeState, RunState, RunStatus
from graflow_celery.errors import GraphCompilationError, RunStateError, UnknownNodeError
from tests.unit.core.transcript import Transcript, plan_of, tasks


def test_a_sequence_dispatches_one_node_after_the_other_and_ends() -> None:
    a, b, c = tasks("abc")
    with WorkflowDefinition("w") as wf:
        a >> b >> c
    run = Transcript(plan_of(wf))
    assert run.feed(RunStarted()) == [DispatchNode("a", 1)]
    assert run.succeed("a") == [DispatchNode("b", 1)]
    assert run.succeed("b") == [DispatchNode("c", 1)]
    assert run.succeed("c") == []
    assert run.state.status is RunStatus.SUCCEEDED
    assert run.state.last_node == "c"


def test_a_join_runs_once_after_all_of_its_predecessors() -> None:
    a, b, c, d = tasks("abcd")
    with WorkflowDefinition("w") as wf:
        a >> b >> d
        a >> c >> d
    run = Transcript(plan_of(wf))
    run.feed(RunStarted())
    assert run.succeed("a") == [DispatchNode("b", 1), DispatchNode("c", 1)]
    assert run.succeed("c") == []
    assert run.succeed("b") == [DispatchNode("d", 1)]
    assert run.succeed("d") == []
    assert run.state.status is RunStatus.SUCCEEDED


def test_a_group_opens_closes_at_its_barrier_and_goes_on() -> None:
    a, b, c, d = tasks("abcd")
    with WorkflowDefinition("w") as wf:
        a >> (b | c) >> d
    run = Transcript(plan_of(wf))
    run.feed(RunStarted())
    assert run.succeed("a") == [OpenGroup("b|c")]
    assert run.succeed("b") == []
    applied = run.apply(NodeSucceeded("c", 1))
    assert [emission.command for emission in applied.emissions] == [CloseBarrier("b|c")]
    assert run.feed(BarrierReached("b|c", None)) == [DispatchNode("d", 1)]
    assert run.succeed("d") == []
    assert run.state.status is RunStatus.SUCCEEDED
    assert not run.state.outbox


def test_a_barrier_waits_for_the_last_task_of_a_chain() -> None:
    a, b, c, d, e = tasks("abcde")
    with WorkflowDefinition("w") as wf:
        ((a >> b) | (c >> d)) >> e
    run = Transcript(plan_of(wf))
    assert run.feed(RunStarted()) == [OpenGroup("a|c")]
    assert run.succeed("a", "c") == [DispatchNode("b", 1), DispatchNode("d", 1)]
    assert run.succeed("b") == []
    assert run.succeed("d") == [CloseBarrier("a|c")]
    assert run.feed(BarrierReached("a|c", None)) == [DispatchNode("e", 1)]


def test_a_group_inside_of_a_group_closes_first() -> None:
    a, b, c, d = tasks("abcd")
    with WorkflowDefinition("w") as wf:
        inner = (a | b).set_group_name("inner")
        (inner | c).set_group_name("outer") >> d
    run = Transcript(plan_of(wf))
    assert run.feed(RunStarted()) == [OpenGroup("outer"), OpenGroup("inner")]
    assert run.succeed("c", "a") == []
    assert run.succeed("b") == [CloseBarrier("inner")]
    assert run.feed(BarrierReached("inner", None)) == [CloseBarrier("outer")]
    assert run.feed(BarrierReached("outer", None)) == [DispatchNode("d", 1)]
    assert run.succeed("d") == []
    assert run.state.status is RunStatus.SUCCEEDED


def test_a_failed_member_is_judged_at_the_barrier_and_not_before() -> None:
    a, b, c = tasks("abc")
    with WorkflowDefinition("w") as wf:
        (a | b) >> c
    run = Transcript(plan_of(wf))
    run.feed(RunStarted())
    assert run.feed(NodeFailed("a", 1, "boom")) == []
    assert run.succeed("b") == [CloseBarrier("a|b")]
    run.feed(BarrierReached("a|b", "1 of 2 members failed"))
    assert run.state.status is RunStatus.FAILED
    assert run.state.reason == "'a|b' failed: 1 of 2 members failed"


def test_a_failure_outside_of_a_group_ends_the_run_and_what_comes_later_is_stale() -> None:
    a, b, c = tasks("abc")
    with WorkflowDefinition("w") as wf:
        a >> b
        a >> c
    run = Transcript(plan_of(wf))
    run.feed(RunStarted())
    run.succeed("a")
    run.feed(NodeFailed("b", 1, "ValueError: no"))
    assert run.state.status is RunStatus.FAILED
    assert run.state.failed_node == "b"
    assert run.apply(NodeSucceeded("c", 1)).stale


def test_what_comes_after_a_failure_in_a_chain_is_skipped_and_arrives_at_the_barrier() -> None:
    a, b, c, d = tasks("abcd")
    with WorkflowDefinition("w") as wf:
        ((a >> b >> c) | d).set_group_name("g")
    run = Transcript(plan_of(wf))
    run.feed(RunStarted())
    run.succeed("d")
    assert run.feed(NodeFailed("a", 1, "boom")) == [SkipNode("b")]
    assert run.feed(NodeSkipped("b")) == [SkipNode("c")]
    applied = run.apply(NodeSkipped("c"))
    assert [emission.command for emission in applied.emissions] == [CloseBarrier("g")]
    assert run.state.nodes["c"].state is NodeState.SKIPPED


def test_an_edge_across_the_border_of_a_group_is_refused() -> None:
    a, b, c, d = tasks("abcd")
    with WorkflowDefinition("w") as wf:
        member = a >> b
        a >> c
        (member | d).set_group_name("g")
    with pytest.raises(GraphCompilationError, match="'a' >> 'c' crosses the border of parallel group 'g'"):
        plan_of(wf)


def test_retries_take_a_new_attempt_and_fence_the_old_one_off() -> None:
    (a,) = tasks("a", max_retries=2)
    with WorkflowDefinition("w") as wf:
        wf.add(a)
    run = Transcript(plan_of(wf))
    run.feed(RunStarted())
    applied = run.apply(NodeFailed("a", 1, "boom"))
    assert [emission.command for emission in applied.emissions] == [DispatchNode("a", 2)]
    assert not applied.ended_node
    assert run.apply(NodeSucceeded("a", 1)).stale
    assert run.feed(NodeFailed("a", 2, "boom")) == [DispatchNode("a", 3)]
    assert run.apply(NodeSucceeded("a", 3)).ended_node
    assert run.state.status is RunStatus.SUCCEEDED


def test_what_another_attempt_cannot_help_is_not_retried() -> None:
    (a,) = tasks("a", max_retries=2)
    with WorkflowDefinition("w") as wf:
        wf.add(a)
    run = Transcript(plan_of(wf))
    run.feed(RunStarted())
    run.feed(NodeFailed("a", 1, "no such module", retryable=False))
    assert run.state.status is RunStatus.FAILED


def test_duplicates_of_outcomes_and_barriers_are_stale() -> None:
    a, b, c = tasks("abc")
    with WorkflowDefinition("w") as wf:
        (a | b) >> c
    run = Transcript(plan_of(wf))
    run.feed(RunStarted())
    run.succeed("a")
    assert run.apply(NodeSucceeded("a", 1)).stale
    assert run.apply(NodeFailed("a", 1, "late")).stale
    run.succeed("b")
    run.feed(BarrierReached("a|b", None))
    assert run.apply(BarrierReached("a|b", "late")).stale


@pytest.mark.parametrize(
    ("event", "status"),
    [(CancelRequested("enough"), RunStatus.CANCELLED), (RunAborted("graph lost"), RunStatus.FAILED)],
)
def test_a_run_can_be_ended_from_outside_and_begins_nothing_more(event: Event, status: RunStatus) -> None:
    a, b = tasks("ab")
    with WorkflowDefinition("w") as wf:
        a >> b
    run = Transcript(plan_of(wf))
    run.feed(RunStarted())
    run.feed(event)
    assert run.state.status is status
    assert run.begin("a", 1) is None
    assert run.apply(NodeSucceeded("a", 1)).stale


def test_begin_is_fenced_by_attempt() -> None:
    state = RunState(outstanding=1)
    assert state.begin("a", 1) == Leave()
    assert state.begin("a", 1) is None, "a message that was sent twice runs once"
    assert state.begin("a", 1, "another worker") is None, "whoever asks"
    assert state.begin("a", 2) is None
    assert state.begin("b", 2) is None


def test_events_that_do_not_fit_the_plan_are_refused_by_name() -> None:
    a, b = tasks("ab")
    with WorkflowDefinition("w") as wf:
        (a | b).set_group_name("g")
    plan = plan_of(wf)
    with pytest.raises(UnknownNodeError, match="no node 'x'"):
        Scheduler().decide(plan, NodeSucceeded("x", 1))
    with pytest.raises(RunStateError, match="'g' is a group"):
        Scheduler().decide(plan, NodeSucceeded("g", 1))
    with pytest.raises(RunStateError, match="'a' is a task"):
        Scheduler().decide(plan, BarrierReached("a", None))


@pytest.mark.parametrize("command", [DispatchNode("ä|b", 3), OpenGroup("g"), CloseBarrier("g"), SkipNode('q"uote')])
def test_a_command_has_one_text_and_comes_back_from_it(command: Command) -> None:
    assert from_text(to_text(command)) == command


@pytest.mark.parametrize("text", ["", "[]", '["fly","a"]', '["dispatch"]', "nonsense"])
def test_a_text_that_is_no_command_is_refused(text: str) -> None:
    with pytest.raises(RunStateError, match="Not a command"):
        from_text(text)
