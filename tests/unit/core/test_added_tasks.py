"""Transcripts of tasks that are added while a run goes on: their node waits for them."""

from __future__ import annotations

import pytest

from graflow_celery.core.commands import CloseBarrier, DispatchNode, FinishNode, OpenGroup, SkipNode
from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.events import BarrierReached, NodeFailed, NodeFinished, NodeSkipped, NodeSucceeded
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import NodeState, RunStatus
from graflow_celery.errors import DuplicateTaskError
from tests.unit.core.transcript import Transcript, new, plan_of, tasks


def pair() -> Plan:
    a, b = tasks("ab")
    with WorkflowDefinition("w") as wf:
        a >> b
    return plan_of(wf)


def grouped(policy: str = "strict") -> Plan:
    a, b, after = tasks(["a", "b", "after"])
    with WorkflowDefinition("w") as wf:
        (a | b).set_group_name("g").with_execution(policy=policy) >> after
    return plan_of(wf)


def finished(group: str, node: str = "a", **fields: object) -> FinishNode:
    return FinishNode(node, 2, group, **fields)  # type: ignore[arg-type]


def test_the_successors_of_a_task_wait_for_what_it_added() -> None:
    run = Transcript.started(pair())
    group, opened = run.add("a", new("x"), new("y"))
    assert opened == [OpenGroup(group, group)]
    assert run.state.nodes["a"].state is NodeState.WAITING
    assert run.succeed(run.inside(group, "x")) == []
    assert run.succeed(run.inside(group, "y")) == [CloseBarrier(group, group)]
    assert run.feed(BarrierReached(group, None)) == [finished(group)]
    assert run.feed(NodeFinished("a", 2, group)) == [DispatchNode("b", 1)]
    assert run.states("a") == [NodeState.SUCCEEDED]
    assert run.succeed("b") == []
    assert run.state.status is RunStatus.SUCCEEDED


def test_the_attempt_that_added_has_no_more_to_say() -> None:
    run = Transcript.started(pair())
    group, _ = run.add("a", new("x"))
    assert run.apply(NodeSucceeded("a", 1, (), group)).stale
    assert run.apply(NodeFailed("a", 1, "late")).stale
    assert run.begin("a", 2) is None, "nothing of it runs while it waits"
    assert run.apply(NodeFinished("a", 1, group)).stale


def test_a_node_is_finished_once() -> None:
    run = Transcript.started(pair())
    group, _ = run.add("a", new("x"))
    run.succeed(run.inside(group, "x"))
    run.feed(BarrierReached(group, None))
    assert run.apply(BarrierReached(group, "late")).stale
    run.feed(NodeFinished("a", 2, group))
    assert run.apply(NodeFinished("a", 2, group)).stale


def test_with_goto_the_successors_are_left_out() -> None:
    run = Transcript.started(pair())
    group, _ = run.add("a", new("x"), leaves=True)
    run.succeed(run.inside(group, "x"))
    assert run.feed(BarrierReached(group, None)) == [finished(group, leaves=True)]
    assert run.feed(NodeFinished("a", 2, group, leaves=True)) == [SkipNode("b")]
    run.feed(NodeSkipped("b"))
    assert run.state.status is RunStatus.SUCCEEDED


def test_jumps_of_a_task_that_added_take_place_when_what_it_added_is_done() -> None:
    run = Transcript.started(pair())
    group, opened = run.add("a", new("x"), goto=("a",))
    assert opened == [OpenGroup(group, group)]
    run.succeed(run.inside(group, "x"))
    assert run.state.jumps[group] == ("a",)
    assert run.feed(BarrierReached(group, None, ("a",))) == [finished(group, goto=("a",))]
    assert run.feed(NodeFinished("a", 2, group, goto=("a",))) == [DispatchNode("a@1~0", 1), SkipNode("b")]


def test_an_added_task_may_jump_to_a_task_that_was_there() -> None:
    run = Transcript.started(pair())
    group, _ = run.add("a", new("x"))
    assert run.jump(run.inside(group, "x"), "a") == [CloseBarrier(group, group)]
    assert run.state.jumps[group] == ("a",)


def test_chains_are_added_with_their_order() -> None:
    run = Transcript.started(pair())
    group, _ = run.add("a", new("x") >> new("y"))
    assert run.succeed(run.inside(group, "x")) == [DispatchNode(run.inside(group, "y"), 1, group)]
    assert run.succeed(run.inside(group, "y")) == [CloseBarrier(group, group)]


def test_an_added_task_may_add_tasks() -> None:
    run = Transcript.started(pair())
    outer, _ = run.add("a", new("x"))
    x = run.inside(outer, "x")
    inner, opened = run.add(x, new("y"))
    assert opened == [OpenGroup(inner, inner)]
    assert run.succeed(run.inside(inner, "y")) == [CloseBarrier(inner, inner)]
    assert run.feed(BarrierReached(inner, None)) == [finished(inner, x, graph=outer)]
    applied = run.apply(NodeFinished(x, 2, inner))
    assert [item.command for item in applied.emissions] == [CloseBarrier(outer, outer)]
    assert run.feed(BarrierReached(outer, None)) == [finished(outer)]
    assert run.feed(NodeFinished("a", 2, outer)) == [DispatchNode("b", 1)]


def test_the_same_task_may_be_added_in_another_pass() -> None:
    run = Transcript.started(pair())
    plan = run.plan
    first, _ = run.add("a", new("x"), goto=("a",))
    run.succeed(run.inside(first, "x"))
    run.feed(BarrierReached(first, None, ("a",)))
    run.feed(NodeFinished("a", 2, first, goto=("a",)))
    run.plan = plan
    second, _ = run.add("a@1~0", new("x"))
    assert second != first
    assert run.state.nodes[second].state is NodeState.RUNNING


def test_what_the_workflow_has_cannot_be_added() -> None:
    run = Transcript.started(pair())
    with pytest.raises(DuplicateTaskError, match="'b'"):
        run.add("a", new("b"))


def test_the_failure_of_an_added_task_ends_the_run_with_that_tasks_failure() -> None:
    run = Transcript.started(pair())
    group, _ = run.add("a", new("x"), new("y"))
    x = run.inside(group, "x")
    run.feed(NodeFailed(x, 1, "ValueError: no"))
    assert run.state.status is RunStatus.FAILED
    assert run.state.reason == "'x' failed: ValueError: no"
    assert run.state.failed_node == x


def test_so_does_that_of_a_task_that_an_added_task_added() -> None:
    run = Transcript.started(pair())
    outer, _ = run.add("a", new("x"))
    inner, _ = run.add(run.inside(outer, "x"), new("y"))
    run.feed(NodeFailed(run.inside(inner, "y"), 1, "boom"))
    assert run.state.reason == "'y' failed: boom"


def test_but_a_group_that_was_added_is_judged_by_its_policy() -> None:
    run = Transcript.started(pair())
    x, y = tasks("xy")
    group, opened = run.add("a", (x | y).set_group_name("inner").with_execution(policy="best_effort"))
    inner = run.inside(group, "inner")
    assert opened == [OpenGroup(group, group), OpenGroup(inner, group)]
    run.feed(NodeFailed(run.inside(inner, "x"), 1, "boom"))
    assert run.succeed(run.inside(inner, "y")) == [CloseBarrier(inner, group)]
    assert run.feed(BarrierReached(inner, None)) == [CloseBarrier(group, group)]
    assert run.state.status is RunStatus.RUNNING


def test_inside_of_a_group_the_failure_of_an_added_task_fails_the_member() -> None:
    run = Transcript.started(grouped())
    group, _ = run.add("a", new("x"))
    run.succeed("b")
    assert run.feed(NodeFailed(run.inside(group, "x"), 1, "boom")) == [CloseBarrier(group, group)]
    assert run.state.status is RunStatus.RUNNING
    assert run.feed(BarrierReached(group, "1 of 1")) == [finished(group, failure="1 of 1")]
    applied = run.apply(NodeFinished("a", 2, group, failure="1 of 1"))
    assert [item.command for item in applied.emissions] == [CloseBarrier("g")]
    assert run.state.nodes["a"].state is NodeState.FAILED


def test_what_a_member_added_goes_on_when_its_group_has_closed_but_finishes_nothing() -> None:
    run = Transcript.started(grouped("best_effort"))
    group, _ = run.add("a", new("x"))
    assert run.feed(BarrierReached("g", None)) == [DispatchNode("after", 1)]
    run.succeed("after")
    assert run.state.status is RunStatus.RUNNING, "the run waits for its tasks"
    run.succeed(run.inside(group, "x"))
    assert run.feed(BarrierReached(group, None)) == [], "it was the last thing that the run waited for"
    assert run.state.status.is_terminal


def test_a_finish_that_comes_too_late_is_stale() -> None:
    run = Transcript.started(grouped("best_effort"))
    group, _ = run.add("a", new("x"))
    run.feed(BarrierReached("g", None))
    run.succeed(run.inside(group, "x"))
    assert run.feed(BarrierReached(group, None)) == [finished(group)]
    assert run.apply(NodeFinished("a", 2, group)).stale
    assert run.state.status is RunStatus.RUNNING
    assert run.apply(NodeSucceeded("after", 1)).status is RunStatus.SUCCEEDED


def test_the_record_of_an_added_task_that_never_began_says_which_graph_it_is_of() -> None:
    """Its code could not be loaded, say: who reads the record looks for the task in that graph."""
    run = Transcript.started(pair())
    group, _ = run.add("a", new("x"), new("y"))
    x, y = run.inside(group, "x"), run.inside(group, "y")
    run.feed(NodeSkipped(y))
    run.feed(NodeFailed(x, 1, "no code", False))
    assert run.state.nodes[x].graph == run.state.nodes[y].graph == run.state.nodes[group].graph != ""
