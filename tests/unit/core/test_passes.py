"""Transcripts of cycles and jumps: every pass through a node has records and joins of its own."""

from __future__ import annotations

import pytest

from graflow_celery.core.commands import CloseBarrier, DispatchNode, OpenGroup, SkipNode
from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.events import (
    BarrierReached,
    NodeFailed,
    NodeReentered,
    NodeSkipped,
    NodeSucceeded,
)
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import NodeState, RunStatus
from tests.unit.core.transcript import Transcript, new, plan_of, tasks


def line() -> Plan:
    """a, b, c, d: the plan's numbers 0 to 3."""
    a, b, c, d = tasks("abcd")
    with WorkflowDefinition("w") as wf:
        a >> b >> c >> d
    return plan_of(wf)


def test_an_edge_that_closes_a_cycle_enters_its_target_anew_next_to_the_successors() -> None:
    a, b, c = tasks("abc")
    with WorkflowDefinition("w") as wf:
        a >> b >> a
        b >> c
    run = Transcript.started(plan_of(wf))
    run.succeed("a")
    assert run.succeed("b") == [DispatchNode("c", 1), DispatchNode("a@1~0", 1)]
    assert run.succeed("a@1~0") == [DispatchNode("b@1~0", 1)]
    assert run.succeed("b@1~0") == [DispatchNode("c@1~0", 1), DispatchNode("a@2~0", 1)]
    assert run.succeed("c", "c@1~0") == []
    assert run.state.status is RunStatus.RUNNING, "the third pass is still to come"


def test_a_task_may_follow_itself_until_its_limit_ends_the_run() -> None:
    a = new("a", max_cycles=3)
    with WorkflowDefinition("w") as wf:
        a >> a
    run = Transcript.started(plan_of(wf))
    for key, again, cycle in (("a", "a@1~0", 1), ("a@1~0", "a@2~0", 2), ("a@2~0", "a@3~0", 3)):
        assert run.succeed(key) == [DispatchNode(again, 1)]
        leave = run.begin(again, 1)
        assert leave is not None
        assert leave.cycle == cycle
        run.apply(NodeReentered(again, 1, cycle))
        assert run.state.status is (RunStatus.RUNNING if cycle < 3 else RunStatus.FAILED)
    assert run.state.reason == "'a' failed: it ran 3 times, as often as max_cycles=3 allows"


def test_a_task_without_a_limit_may_be_entered_as_often_as_it_likes() -> None:
    (a,) = tasks("a")
    with WorkflowDefinition("w") as wf:
        a >> a
    run = Transcript.started(plan_of(wf))
    run.succeed("a")
    assert not run.apply(NodeReentered("a@1~0", 1, 1000)).ended_node


def test_a_failure_does_not_go_round_a_cycle_and_a_leaving_task_neither() -> None:
    a, b, c = tasks("abc")
    with WorkflowDefinition("w") as wf:
        a >> b >> c >> b
    run = Transcript.started(plan_of(wf))
    run.succeed("a", "b")
    assert run.feed(NodeSucceeded("c", 1, leaves=True)) == []
    assert run.state.status is RunStatus.SUCCEEDED
    run = Transcript.started(plan_of(wf))
    run.succeed("a", "b")
    assert run.feed(NodeFailed("c", 1, "boom")) == []
    assert run.state.status is RunStatus.FAILED


def test_a_jump_back_runs_what_lies_between_once_more() -> None:
    run = Transcript.started(line())
    run.succeed("a", "b")
    assert run.jump("c", "b") == [DispatchNode("b@1~1", 1), SkipNode("d")]
    assert run.feed(NodeSkipped("d")) == []
    assert run.succeed("b@1~1") == [DispatchNode("c@1~1", 1)]
    assert run.succeed("c@1~1") == [DispatchNode("d@1~1", 1)]
    assert run.succeed("d@1~1") == []
    assert run.state.status is RunStatus.SUCCEEDED
    assert run.states("d") == [NodeState.SKIPPED, NodeState.SUCCEEDED]


def test_a_jump_forward_passes_over_what_lies_between() -> None:
    run = Transcript.started(line())
    assert run.jump("a", "d") == [DispatchNode("d@1~3", 1), SkipNode("b")]
    assert run.feed(NodeSkipped("b")) == [SkipNode("c")]
    assert run.feed(NodeSkipped("c")) == [SkipNode("d")]
    assert run.feed(NodeSkipped("d")) == []
    assert run.succeed("d@1~3") == []
    assert run.state.status is RunStatus.SUCCEEDED


def test_a_jump_to_itself_is_another_pass() -> None:
    run = Transcript.started(line())
    assert run.jump("a", "a") == [DispatchNode("a@1~0", 1), SkipNode("b")]
    assert run.state.nodes["a@1~0"].cycle == 1
    assert run.jump("a@1~0", "a") == [DispatchNode("a@2~0", 1), SkipNode("b@1~0")]
    assert run.state.nodes["a@2~0"].cycle == 2


def test_a_join_in_a_later_pass_waits_for_what_that_pass_reaches_only() -> None:
    a, b, c, d, e = tasks("abcde")
    with WorkflowDefinition("w") as wf:
        a >> b >> d >> e
        a >> c >> d
    plan = plan_of(wf)
    run = Transcript.started(plan)
    run.succeed("a", "b", "c")
    again = f"b@1~{plan.number('b')}"
    assert run.jump("d", "b") == [DispatchNode(again, 1), SkipNode("e")]
    assert run.succeed(again) == [DispatchNode(again.replace("b", "d"), 1)], "c is not reached from b"
    both = f"@2~{plan.number('a')}"
    assert run.jump(again.replace("b", "d"), "a")[0] == DispatchNode("a" + both, 1)
    run.succeed("a" + both)
    assert run.succeed("b" + both) == []
    assert run.succeed("c" + both) == [DispatchNode("d" + both, 1)], "from a both ways lead to d"


def test_a_join_that_a_jumping_predecessor_left_runs_for_the_other_one() -> None:
    a, b, c, d = tasks("abcd")
    with WorkflowDefinition("w") as wf:
        a >> b >> d
        a >> c >> d
    run = Transcript.started(plan_of(wf))
    run.succeed("a")
    [jumped] = run.jump("b", "b")
    assert isinstance(jumped, DispatchNode)
    assert run.succeed("c") == [DispatchNode("d", 1)]


def test_two_jumps_from_one_pass_to_one_target_count_as_one() -> None:
    a, b, c = tasks("abc")
    with WorkflowDefinition("w") as wf:
        a >> b
        a >> c
    run = Transcript.started(plan_of(wf))
    run.succeed("a")
    assert run.jump("b", "a") == [DispatchNode("a@1~0", 1)]
    assert run.jump("c", "a") == []
    assert run.state.nodes["a@1~0"].state is NodeState.QUEUED
    assert run.succeed("a@1~0") == [DispatchNode("b@1~0", 1), DispatchNode("c@1~0", 1)]
    run.succeed("b@1~0", "c@1~0")
    assert run.state.status is RunStatus.SUCCEEDED


def test_one_task_may_jump_to_two() -> None:
    run = Transcript.started(line())
    assert run.jump("a", "b", "d") == [DispatchNode("b@1~1", 1), DispatchNode("d@1~3", 1), SkipNode("b")]


def test_a_jump_to_a_group_opens_it_anew_and_its_members_have_keys_of_their_own() -> None:
    a, b, c, d = tasks("abcd")
    with WorkflowDefinition("w") as wf:
        a >> (b | c).set_group_name("g") >> d
    plan = plan_of(wf)
    run = Transcript.started(plan)
    run.succeed("a", "b", "c")
    run.feed(BarrierReached("g", None))
    again = f"g@1~{plan.number('g')}"
    assert run.jump("d", "g") == [OpenGroup(again)]
    assert run.inside(again, "b") == f"b@1~{plan.number('g')}.0"
    assert run.succeed(run.inside(again, "b")) == []
    assert run.succeed(run.inside(again, "c")) == [CloseBarrier(again)]
    assert run.apply(BarrierReached("g", None)).stale, "the first pass is over"
    assert run.feed(BarrierReached(again, None)) == [DispatchNode(f"d@1~{plan.number('g')}", 1)]


def member() -> Plan:
    """start >> (a >> b >> c | d) >> after, the group named g."""
    a, b, c, d, start, after = tasks(["a", "b", "c", "d", "start", "after"])
    with WorkflowDefinition("w") as wf:
        start >> ((a >> b >> c) | d).set_group_name("g") >> after
    return plan_of(wf)


def test_a_jump_inside_of_a_member_goes_on_in_it_and_the_barrier_sees_its_last_outcome() -> None:
    plan = member()
    run = Transcript.started(plan)
    run.succeed("start", "a", "d")
    again = f"@0.1~{plan.number('a')}"
    applied = run.apply(NodeSucceeded("b", 1, ("a",)))
    assert [emission.command for emission in applied.emissions] == [DispatchNode("a" + again, 1)]
    assert applied.ended_node, "that pass of it; the member goes on"
    run.succeed("a" + again)
    assert run.succeed("b" + again) == [DispatchNode("c" + again, 1)]
    closing = run.apply(NodeSucceeded("c" + again, 1))
    assert [item.command for item in closing.emissions] == [CloseBarrier("g")]
    assert closing.ended_node
    assert run.state.nodes["c"].state is NodeState.SUCCEEDED, "where the barrier looks"


def test_a_member_that_fails_in_a_later_pass_has_failed() -> None:
    plan = member()
    run = Transcript.started(plan)
    run.succeed("start", "a", "b")
    run.jump("c", "b")
    again = f"@0.1~{plan.number('b')}"
    run.succeed("b" + again)
    run.feed(NodeFailed("c" + again, 1, "boom"))
    assert run.state.nodes["c"].state is NodeState.FAILED
    assert run.succeed("d") == [CloseBarrier("g")]


def test_of_two_jumps_inside_of_a_member_the_one_that_leads_further_back_is_taken() -> None:
    plan = member()
    run = Transcript.started(plan)
    run.succeed("start", "a")
    assert run.jump("b", "c", "a") == [DispatchNode(f"a@0.1~{plan.number('a')}", 1)]


def test_a_jump_out_of_a_group_takes_place_at_its_barrier_in_place_of_its_successors() -> None:
    plan = member()
    run = Transcript.started(plan)
    run.succeed("start", "a")
    assert run.jump("b", "start") == []
    assert run.state.nodes["c"].state is NodeState.SUCCEEDED, "the member is complete"
    applied = run.apply(NodeSucceeded("d", 1))
    assert [item.command for item in applied.emissions] == [CloseBarrier("g")]
    assert run.state.jumps["g"] == ("start",)
    assert run.feed(BarrierReached("g", None, ("start",))) == [DispatchNode("start@1~0", 1), SkipNode("after")]


def test_a_jump_out_of_a_group_that_fails_does_not_take_place() -> None:
    run = Transcript.started(member())
    run.succeed("start")
    run.jump("a", "start")
    run.feed(NodeFailed("d", 1, "boom"))
    run.feed(BarrierReached("g", "1 of 2 members failed", ("start",)))
    assert run.state.status is RunStatus.FAILED
    assert "start@1~0" not in run.state.nodes


def test_a_jump_out_of_two_groups_waits_for_both_barriers() -> None:
    a, b, c = tasks("abc")
    with WorkflowDefinition("w") as wf:
        inner = (a | b).set_group_name("inner")
        (inner | c).set_group_name("outer")
    run = Transcript.started(plan_of(wf))
    run.jump("a", "outer")
    assert run.succeed("b") == [CloseBarrier("inner")]
    assert run.feed(BarrierReached("inner", None, run.state.jumps["inner"])) == []
    assert run.state.jumps["outer"] == ("outer",)
    assert run.succeed("c") == [CloseBarrier("outer")]
    again = "@1~0"
    opened = run.feed(BarrierReached("outer", None, run.state.jumps["outer"]))
    assert opened == [OpenGroup(f"outer{again}"), OpenGroup(f"inner{again}.0")]


@pytest.mark.parametrize("times", [2, 3])
def test_a_jump_told_more_than_once_takes_place_once(times: int) -> None:
    run = Transcript.started(line())
    run.jump("a", "a")
    for _ in range(times):
        assert run.apply(NodeSucceeded("a", 1, ("a",))).stale
    assert run.states("a") == [NodeState.SUCCEEDED, NodeState.QUEUED]
