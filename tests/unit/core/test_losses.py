"""Transcripts of attempts that do not come to their end: lost with their process, or given back."""

from __future__ import annotations

import pytest

from graflow_celery.core.commands import CloseBarrier, DispatchNode
from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.events import FeedbackRequested, NodeFailed, NodeLost, NodeReturned, NodeSucceeded
from graflow_celery.core.plan import Plan
from graflow_celery.core.scheduler import losses_allowed
from graflow_celery.core.state import Leave, NodeRecord, NodeState, RunStatus
from tests.unit.core.transcript import Transcript, new, plan_of, tasks

SETTING = 3


def alone(**options: object) -> Plan:
    with WorkflowDefinition("w") as wf:
        new("a", **options) >> new("b")
    return plan_of(wf)


def lost(attempt: int, losses: int, holder: str = "w", **fields: float) -> NodeLost:
    return NodeLost("a", attempt, losses, SETTING, f"loss {losses + 1}", holder, **fields)


def test_the_next_attempt_takes_over_and_the_losses_are_kept() -> None:
    run = Transcript.started(alone(max_retries=1))
    run.begin("a", 1)
    assert run.feed(lost(1, 0)) == [DispatchNode("a", 2)]
    assert run.state.nodes["a"] == NodeRecord(NodeState.QUEUED, 2, losses=1)
    assert run.begin("a", 2, "w2") == Leave()
    assert run.state.nodes["a"] == NodeRecord(NodeState.RUNNING, 2, losses=1, worker="w2")
    run.feed(NodeFailed("a", 2, "boom"))
    assert run.state.nodes["a"] == NodeRecord(NodeState.QUEUED, 3, losses=1, retries=1)
    assert run.begin("a", 3) == Leave(retries=1)
    run.feed(NodeSucceeded("a", 3))
    assert run.state.nodes["a"] == NodeRecord(NodeState.SUCCEEDED, 3, losses=1, retries=1)


def test_the_first_loss_is_made_good_at_once_and_later_ones_after_a_while() -> None:
    run = Transcript.started(alone(max_losses=9))
    delays = []
    for losses in range(8):
        run.begin("a", losses + 1)
        [emission] = run.apply(lost(losses + 1, losses, jitter=0.5)).emissions
        delays.append(emission.delay)
    assert delays == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_chance_spreads_those_that_were_lost_together() -> None:
    run = Transcript.started(alone())
    run.begin("a", 1)
    run.feed(lost(1, 0))
    run.begin("a", 2)
    [emission] = run.apply(lost(2, 1, jitter=0.0)).emissions
    assert emission.delay == 0.5


@pytest.mark.parametrize(
    ("options", "allowed"),
    [({}, SETTING), ({"max_losses": 1}, 1), ({"max_losses": 4}, 4), ({"on_worker_loss": "fail"}, 1)],
)
def test_a_node_fails_with_as_many_losses_as_it_is_allowed(options: dict[str, object], allowed: int) -> None:
    plan = alone(**options)
    assert losses_allowed(plan["a"].options, SETTING) == allowed
    run = Transcript.started(plan)
    for losses in range(allowed):
        assert run.state.status is RunStatus.RUNNING
        run.begin("a", losses + 1)
        assert run.apply(lost(losses + 1, losses)).ended_node == (losses + 1 == allowed)
    assert run.state.status is RunStatus.FAILED
    assert run.state.reason == f"'a' failed: loss {allowed}"
    assert run.state.nodes["a"] == NodeRecord(NodeState.FAILED, allowed, losses=allowed)


@pytest.mark.parametrize("holder", ["", "another"])
def test_only_what_the_worker_runs_is_lost_with_it(holder: str) -> None:
    run = Transcript.started(alone())
    run.begin("a", 1, "w")
    assert run.apply(lost(1, 0, holder)).stale
    assert run.apply(NodeReturned("a", 1, "r", holder)).stale
    assert not run.apply(lost(1, 0, "w")).stale


def test_what_nobody_has_begun_is_not_lost_but_may_be_returned() -> None:
    run = Transcript.started(alone())
    assert run.apply(lost(1, 0, "w")).stale
    assert run.apply(NodeReturned("a", 1, "r", "w")).stale
    assert run.feed(NodeReturned("a", 1, "r")) == [DispatchNode("a", 2)]
    assert run.state.nodes["a"] == NodeRecord(NodeState.QUEUED, 2), "no loss"
    assert run.begin("a", 1) is None, "its message comes late"


def test_an_attempt_that_is_not_current_yet_is_none() -> None:
    run = Transcript.started(alone())
    assert run.begin("a", 2) is None
    assert run.apply(NodeReturned("a", 2, "r")).stale
    run.begin("a", 1)
    assert run.apply(lost(2, 0)).stale


def test_what_runs_is_returned_by_the_worker_that_runs_it_without_a_loss() -> None:
    run = Transcript.started(alone())
    run.begin("a", 1, "w")
    [emission] = run.apply(NodeReturned("a", 1, "its worker shut down", "w")).emissions
    assert (emission.command, emission.delay) == (DispatchNode("a", 2), 0.0)
    assert run.state.nodes["a"] == NodeRecord(NodeState.QUEUED, 2)


def test_the_end_of_a_zombie_changes_nothing() -> None:
    run = Transcript.started(alone())
    run.begin("a", 1)
    run.feed(lost(1, 0))
    for late in (NodeSucceeded("a", 1), NodeFailed("a", 1, "r"), lost(1, 0), NodeReturned("a", 1, "r", "w")):
        assert run.apply(late).stale
    run.begin("a", 2)
    assert run.apply(NodeSucceeded("a", 1)).stale
    assert run.feed(NodeSucceeded("a", 2)) == [DispatchNode("b", 1)]


def test_a_node_that_waits_for_a_person_has_nothing_to_lose() -> None:
    run = Transcript.started(alone())
    run.begin("a", 1)
    run.feed(FeedbackRequested("a", 1, "q", 1.0))
    for holder in ("", "w"):
        assert run.apply(lost(2, 0, holder)).stale
        assert run.apply(NodeReturned("a", 2, "r", holder)).stale


def test_a_first_member_without_a_record_may_be_returned_and_not_lost() -> None:
    a, b = tasks("ab")
    with WorkflowDefinition("w") as wf:
        (a | b).set_group_name("g")
    run = Transcript.started(plan_of(wf))
    assert run.apply(lost(1, 0, "w")).stale
    assert run.apply(NodeReturned("a", 2, "r")).stale
    assert run.feed(NodeReturned("a", 1, "r")) == [DispatchNode("a", 2)]
    assert run.state.nodes["a"] == NodeRecord(NodeState.QUEUED, 2)


def test_a_record_that_is_made_so_belongs_to_the_added_graph_too() -> None:
    with WorkflowDefinition("w") as wf:
        wf.add(new("a"))
    run = Transcript.started(plan_of(wf))
    group, _ = run.add("a", new("x"), new("y"))
    member = run.inside(group, "x")
    assert run.feed(NodeReturned(member, 1, "r")) == [DispatchNode(member, 2, group)]
    assert run.state.nodes[member].graph == group


def test_a_member_that_is_lost_for_good_arrives_at_the_barrier() -> None:
    a, b = tasks("ab", max_losses=1)
    with WorkflowDefinition("w") as wf:
        (a | b).with_execution(policy="best_effort").set_group_name("g")
    run = Transcript.started(plan_of(wf))
    run.succeed("b")
    run.begin("a", 1)
    [emission] = run.apply(lost(1, 0)).emissions
    assert emission.command == CloseBarrier("g")
