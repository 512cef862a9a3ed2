"""Transcripts of mapped tasks and of groups whose time is up."""

from __future__ import annotations

import pytest

from graflow_celery.core.commands import (
    CloseBarrier,
    Command,
    DispatchNode,
    ExpireGroup,
    OpenGroup,
    OpenMembers,
)
from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.events import BarrierReached, MapExpanded, NodeFailed, NodeSucceeded, RunStarted
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import NodeState, RunStatus
from graflow_celery.errors import RunStateError, UnknownNodeError
from tests.unit.core.transcript import Transcript, new, plan_of, tasks


def mapped(max_parallel: int | None = None) -> Plan:
    with WorkflowDefinition("w") as wf:
        new("items") >> new("m").map(max_parallel=max_parallel) >> new("after")
    return plan_of(wf)


def expanded(items: int, max_parallel: int | None = None) -> tuple[Transcript, list[Command]]:
    run = Transcript.started(mapped(max_parallel))
    assert run.succeed("items") == [OpenGroup("m")]
    followed = run.feed(MapExpanded("m", items))
    assert OpenGroup("m") not in run.state.outbox, "it is carried out"
    return run, followed


def test_a_mapped_task_without_items_closes_at_once() -> None:
    run, followed = expanded(0)
    assert followed == [CloseBarrier("m")]
    assert run.feed(BarrierReached("m", None)) == [DispatchNode("after", 1)]


@pytest.mark.parametrize("items", [1, 3])
def test_it_has_a_member_for_each_item(items: int) -> None:
    run, followed = expanded(items)
    assert followed == [OpenMembers("m", 0, items, items)]
    members = [f"m[{index}]" for index in range(items)]
    assert run.succeed(*members[:-1]) == []
    applied = run.apply(NodeSucceeded(members[-1], 1))
    assert [item.command for item in applied.emissions] == [CloseBarrier("m")]
    assert run.feed(BarrierReached("m", None)) == [DispatchNode("after", 1)]


def test_its_items_are_counted_once() -> None:
    run, _ = expanded(2)
    assert run.feed(MapExpanded("m", 2)) == []
    run.succeed("m[0]")
    assert run.feed(MapExpanded("m", 5)) == []
    assert run.succeed("m[1]") == [CloseBarrier("m")], "two members, as was said first"


def test_items_are_counted_no_more_when_it_has_closed() -> None:
    run = Transcript.started(mapped())
    run.succeed("items")
    run.feed(BarrierReached("m", "its items cannot be taken"))
    assert run.apply(MapExpanded("m", 2)).stale
    assert run.state.status is RunStatus.FAILED


def test_a_few_at_a_time_each_end_starts_the_next_member() -> None:
    run, followed = expanded(4, max_parallel=2)
    assert followed == [OpenMembers("m", 0, 2, 4)]
    assert run.succeed("m[1]") == [DispatchNode("m[2]", 1)]
    assert run.feed(NodeFailed("m[2]", 1, "boom")) == [DispatchNode("m[3]", 1)]
    assert run.succeed("m[3]") == []
    assert run.succeed("m[0]") == [CloseBarrier("m")]


def test_the_window_stays_where_it_is_when_items_are_counted_twice() -> None:
    run, _ = expanded(4, max_parallel=1)
    assert run.succeed("m[0]") == [DispatchNode("m[1]", 1)]
    assert run.feed(MapExpanded("m", 4)) == []
    assert run.succeed("m[1]") == [DispatchNode("m[2]", 1)]


def test_a_window_wider_than_the_items_opens_all() -> None:
    assert expanded(2, max_parallel=9)[1] == [OpenMembers("m", 0, 2, 2)]


def test_a_retried_member_keeps_its_place_in_the_window() -> None:
    with WorkflowDefinition("w") as wf:
        new("items") >> new("m", max_retries=1).map(max_parallel=1)
    run = Transcript.started(plan_of(wf))
    run.succeed("items")
    run.feed(MapExpanded("m", 2))
    assert run.feed(NodeFailed("m[0]", 1, "boom")) == [DispatchNode("m[0]", 2)]
    assert run.feed(NodeSucceeded("m[0]", 2)) == [DispatchNode("m[1]", 1)]


def test_a_mapped_task_in_a_group_is_a_member_and_its_barrier_closes_first() -> None:
    a, after = tasks(["a", "after"])
    with WorkflowDefinition("w") as wf:
        (new("m").map(over="items") | a).set_group_name("g") >> after
    run = Transcript(plan_of(wf))
    assert run.feed(RunStarted()) == [OpenGroup("g"), OpenGroup("m")]
    assert run.feed(MapExpanded("m", 1)) == [OpenMembers("m", 0, 1, 1)]
    run.succeed("a")
    assert run.succeed("m[0]") == [CloseBarrier("m")]
    assert run.feed(BarrierReached("m", None)) == [CloseBarrier("g")]
    assert run.feed(BarrierReached("g", None)) == [DispatchNode("after", 1)]


def test_a_mapped_task_in_a_later_pass_counts_its_items_anew() -> None:
    run, _ = expanded(1, max_parallel=1)
    run.succeed("m[0]")
    run.feed(BarrierReached("m", None))
    again = f"m@1~{run.plan.number('m')}"
    assert run.jump("after", "m") == [OpenGroup(again)]
    assert run.feed(MapExpanded(again, 2)) == [OpenMembers(again, 0, 1, 2)]
    inside = again[1:] + ".0"
    assert run.succeed("m[0]" + inside) == [DispatchNode("m[1]" + inside, 1)]
    assert run.succeed("m[1]" + inside) == [CloseBarrier(again)]


def test_a_jump_of_a_member_takes_place_at_the_barrier() -> None:
    run, _ = expanded(2)
    assert run.jump("m[0]", "items") == []
    applied = run.apply(NodeSucceeded("m[1]", 1))
    assert [item.command for item in applied.emissions] == [CloseBarrier("m")]
    followed = run.feed(BarrierReached("m", None, run.state.jumps["m"]))
    assert followed[0] == DispatchNode(f"items@1~{run.plan.number('items')}", 1)


def test_only_a_mapped_task_has_items_and_members_by_number() -> None:
    run = Transcript.started(mapped())
    with pytest.raises(RunStateError, match="'items' is no mapped task: it has no items"):
        run.feed(MapExpanded("items", 1))
    with pytest.raises(UnknownNodeError, match=r"no node 'after\[0\]'"):
        run.succeed("after[0]")


def timed(policy: str = "best_effort") -> Plan:
    a, b, c, after = tasks(["a", "b", "c", "after"])
    with WorkflowDefinition("w") as wf:
        ((a >> b) | c).set_group_name("g").with_execution(policy=policy, timeout=5.0) >> after
    return plan_of(wf)


def test_a_group_with_a_time_limit_starts_its_timer_when_it_opens() -> None:
    applied = Transcript(timed()).apply(RunStarted())
    assert [(item.command, item.delay) for item in applied.emissions] == [(OpenGroup("g"), 0), (ExpireGroup("g"), 5.0)]


def test_when_its_time_is_up_it_closes_and_the_outcomes_of_its_members_come_too_late() -> None:
    run = Transcript.started(timed())
    run.succeed("c")
    run.begin("a", 1)
    assert run.feed(BarrierReached("g", None)) == [DispatchNode("after", 1)]
    assert run.apply(NodeSucceeded("a", 1)).stale
    assert run.begin("a", 1) is None
    assert run.begin("b", 1) is None
    assert run.state.nodes["a"].state is NodeState.RUNNING, "what it was when the group closed"
    run.succeed("after")
    assert run.state.status is RunStatus.SUCCEEDED


def test_a_group_that_closed_in_time_puts_its_timer_away() -> None:
    run = Transcript.started(timed())
    run.succeed("a", "b", "c")
    assert ExpireGroup("g") in run.state.outbox
    run.feed(BarrierReached("g", None))
    assert not {ExpireGroup("g"), CloseBarrier("g")} & run.state.outbox.keys()
    assert run.apply(BarrierReached("g", "late")).stale


def test_its_policy_decides_what_the_end_of_its_time_means() -> None:
    run = Transcript.started(timed("strict"))
    run.feed(BarrierReached("g", "2 of 2 members failed"))
    assert run.state.status is RunStatus.FAILED


def test_a_group_that_a_timer_closed_arrives_at_the_barrier_around_it() -> None:
    a, b = tasks("ab")
    with WorkflowDefinition("w") as wf:
        ((a | b).set_group_name("inner").with_execution(timeout=1, policy="best_effort") | new("c")).set_group_name("o")
    run = Transcript.started(plan_of(wf))
    run.succeed("c")
    applied = run.apply(BarrierReached("inner", None))
    assert [item.command for item in applied.emissions] == [CloseBarrier("o")]


def test_what_is_inside_of_a_closed_group_is_closed_with_it_however_deep() -> None:
    with WorkflowDefinition("w") as wf:
        inner = (new("a") | new("b")).set_group_name("inner")
        outer = (inner | new("c")).set_group_name("outer").with_execution(policy="best_effort", timeout=1)
        outer >> new("d")
    run = Transcript.started(plan_of(wf))
    assert run.feed(BarrierReached("outer", None)) == [DispatchNode("d", 1)]
    assert run.apply(NodeSucceeded("a", 1)).stale
    assert run.apply(BarrierReached("inner", None)).stale
