"""What becomes of attempts that do not come to their end, and of the groups around them."""

from __future__ import annotations

import pytest

from graflow_celery.core.commands import CloseBarrier, DispatchNode
from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.events import NodeFailed, NodeSucceeded
from graflow_celery.core.expr import Executable, ParallelGroup, SequentialTask
from graflow_celery.core.place import Place
from graflow_celery.core.policy import AtLeastNGroupPolicy, CriticalGroupPolicy, GroupPolicy
from graflow_celery.core.state import Applied, NodeState, RunStatus
from graflow_celery.errors import ParallelGroupError, TimeLimitError, WorkerLostError
from graflow_celery.ports import Held, Members
from tests.unit.core.transcript import new, plan_of
from tests.unit.engine.world import RUN, World

FAIL = {"on_worker_loss": "fail"}
CAUSE = "worker w is gone while it ran"
NOT_WAITED_FOR = "it was not waited for, since the group's policy could not be met any more"


def alone(**options: object) -> World:
    with WorkflowDefinition("w") as wf:
        wf.add(new("a", **options))
    world = World(plan_of(wf))
    world.begin("a")
    return world


def group(*members: Executable, policy: str | GroupPolicy = "strict", after: bool = False) -> World:
    """A group that is open, and nothing of it has begun. ``after``: something comes after it."""
    with WorkflowDefinition("w") as wf:
        made = new("first") >> ParallelGroup(members, name="g", policy=policy)
        if after:
            made >> new("then")
    world = World(plan_of(wf))
    world.begin("first")
    world.tell(NodeSucceeded("first", 1))
    return world


def lose(world: World, node: str, graph: str = "") -> Applied:
    report = world.ledger.report(node)
    assert report is not None
    return world.losses.lost(RUN, world.plans.known[graph], node, report, CAUSE)


def group_error(world: World, name: str = "g") -> ParallelGroupError:
    error = world.store.error(RUN, name)
    assert isinstance(error, ParallelGroupError)
    return error


def state(world: World, node: str) -> NodeState | None:
    record = world.record(node)
    return None if record is None else record.state


# ------------------------------------------------------------------------------------ one attempt


def test_a_loss_says_what_was_lost_and_which_loss_of_how_many_it_is() -> None:
    world = alone()
    assert not lose(world, "a").stale
    world.begin("a", attempt=2)
    assert not lose(world, "a").stale
    assert [reason for _, reason in world.events("node_lost")] == [
        f"{CAUSE}; it runs again elsewhere (loss 1 of 3)",
        f"{CAUSE}; it runs again elsewhere (loss 2 of 3)",
    ]
    assert world.outbox.sent[-1] == (DispatchNode("a", 3), 1.0)
    assert isinstance(world.store.errors["a"], WorkerLostError)
    assert world.stopped == []


def test_a_task_that_loses_too_many_is_failed_with_what_to_do() -> None:
    world = alone(max_losses=2)
    lose(world, "a")
    world.begin("a", attempt=2)
    lose(world, "a")
    assert world.status is RunStatus.FAILED
    error = world.store.error(RUN, "a")
    assert isinstance(error, WorkerLostError)
    assert f"{CAUSE}; it has lost 2 processes, as many as max_losses=2 allows. Is it out of memory?" in str(error)
    assert "max_losses=..." in world.store.state.reason
    assert world.stopped == ["run"], "what else runs of it is not wanted any more"


def test_a_task_may_fail_with_its_first_loss() -> None:
    world = alone(**FAIL)
    lose(world, "a")
    assert world.store.state.reason == f"'a' failed: {CAUSE}, and on_worker_loss='fail'"
    assert world.stopped == ["run"]


def test_a_loss_that_is_told_twice_is_one() -> None:
    world = alone(**FAIL)
    report = world.ledger.report("a")
    assert report is not None
    lose(world, "a")
    assert world.losses.lost(RUN, world.plan, "a", report, CAUSE).stale
    assert world.stopped == ["run"]


def test_what_is_returned_begins_again_without_a_loss() -> None:
    world = alone()
    report = world.ledger.report("a")
    assert not world.losses.returned(RUN, world.plan, "a", report, "its worker shut down").stale
    assert world.losses.returned(RUN, world.plan, "a", report, "its worker shut down").stale
    record = world.record("a")
    assert record is not None
    assert (record.state, record.attempt, record.losses) == (NodeState.QUEUED, 2, 0)
    assert world.events("node_returned") == [("a", "its worker shut down")]
    assert world.store.errors == {}


def test_what_has_no_record_is_returned_as_its_first_attempt() -> None:
    world = group(new("a"), new("b"))
    assert not world.losses.returned(RUN, world.plan, "a", None, "its message got lost").stale
    assert world.attempt("a") == (NodeState.QUEUED, 2)
    assert world.losses.returned(RUN, world.plan, "a", None, "its message got lost").stale


def test_what_is_overdue_fails_and_is_stopped() -> None:
    world = alone(time_limit=5)
    report = world.ledger.report("a")
    assert report is not None
    assert not world.losses.overdue(RUN, world.plan, "a", report).stale
    error = world.store.error(RUN, "a")
    assert isinstance(error, TimeLimitError)
    assert "it ran past its time_limit of 5 s on worker w" in str(error)
    assert world.losses.overdue(RUN, world.plan, "a", report).stale
    assert world.stopped == ["run"], "nothing is stopped for what had ended"


def test_what_is_overdue_has_as_many_retries_as_any_failure() -> None:
    world = alone(time_limit=5, max_retries=1)
    for attempt in (1, 2):
        report = world.ledger.report("a")
        assert report is not None
        assert not world.losses.overdue(RUN, world.plan, "a", report).stale
        if attempt == 1:
            world.begin("a", attempt=2)
    assert world.status is RunStatus.FAILED
    assert [event["event"] for event in world.store.events].count("node_retried") == 1


def test_an_overdue_member_has_its_barrier_sent_directly() -> None:
    world = group(new("a", time_limit=5), new("b"), policy="best_effort")
    for node in "ab":
        world.begin(node)
    world.tell(NodeSucceeded("b", 1))
    report = world.ledger.report("a")
    assert report is not None
    world.losses.overdue(RUN, world.plan, "a", report)
    assert (CloseBarrier("g"), 0.0) in world.outbox.sent


# ------------------------------------------------------------------------------------ the groups around it


def test_a_strict_group_is_closed_with_its_first_member_that_is_given_up() -> None:
    world = group(new("a", **FAIL), new("b"), new("c"), after=True)
    for node in "ab":
        world.begin(node)
    world.tell(NodeSucceeded("b", 1))
    lose(world, "a")
    assert world.status is RunStatus.FAILED
    error = group_error(world)
    assert dict(error.failed_tasks).keys() == {"a", "c"}
    assert dict(error.failed_tasks)["c"] == NOT_WAITED_FOR
    assert CAUSE in str(dict(error.failed_tasks)["a"])
    assert "1 of 3 members failed" in str(error), "of those that are waited for none counts as failed"
    assert world.stopped == ["run"]


def test_a_group_goes_on_while_its_policy_can_be_met() -> None:
    world = group(*(new(name, **FAIL) for name in "abc"), policy=AtLeastNGroupPolicy(2))
    for node in "abc":
        world.begin(node)
    lose(world, "a")
    assert (world.status, world.stopped) == (RunStatus.RUNNING, [])
    lose(world, "b")
    assert world.status is RunStatus.FAILED
    assert "2 of 3 members succeeded" not in str(group_error(world))
    assert "1 of 3 members succeeded, and policy 'at_least_n' needs 2" in str(group_error(world))
    assert world.stopped == ["run"]


@pytest.mark.parametrize(("lost", "status"), [("a", RunStatus.FAILED), ("b", RunStatus.RUNNING)])
def test_of_a_group_with_critical_members_only_those_close_it(lost: str, status: RunStatus) -> None:
    world = group(new("a", **FAIL), new("b", **FAIL), policy=CriticalGroupPolicy(("a",)))
    world.begin(lost)
    lose(world, lost)
    assert world.status is status


def test_a_group_that_takes_what_it_gets_is_not_closed() -> None:
    world = group(new("a", **FAIL), new("b"), policy="best_effort")
    world.begin("a")
    lose(world, "a")
    assert (world.status, state(world, "a"), world.stopped) == (RunStatus.RUNNING, NodeState.FAILED, [])
    world.begin("b")
    world.tell(NodeSucceeded("b", 1))
    assert (CloseBarrier("g"), 0.0) in world.outbox.sent, "the member that was lost arrived too"
    world.engine.close_barrier(RUN, world.plan, "g")
    assert world.status is RunStatus.SUCCEEDED


def test_a_loss_that_is_made_good_closes_nothing() -> None:
    world = group(new("a"), new("b"))
    world.begin("a")
    lose(world, "a")
    assert (world.status, world.stopped) == (RunStatus.RUNNING, [])


def test_a_failure_that_is_no_loss_closes_nothing_by_way_of_one() -> None:
    world = group(new("a"), new("b"), new("c"))
    for node in "abc":
        world.begin(node)
    world.tell(NodeFailed("b", 1, "boom"))
    lose(world, "a")
    assert (world.status, world.attempt("a")) == (RunStatus.RUNNING, (NodeState.QUEUED, 2))


def test_nor_does_a_loss_that_is_told_too_late() -> None:
    world = group(new("a", **FAIL), new("b"), new("c"))
    for node in "abc":
        world.begin(node)
    report = world.ledger.report("a")
    assert report is not None
    world.tell(NodeSucceeded("a", 1))
    world.tell(NodeFailed("b", 1, "boom"))
    assert world.losses.lost(RUN, world.plan, "a", report, CAUSE).stale
    assert (world.status, world.stopped) == (RunStatus.RUNNING, [])


def inner(policy: str, outer: str, **options: object) -> World:
    nested = ParallelGroup([new("a", **options), new("b")], name="in", policy=policy)
    world = group(SequentialTask([nested, new("x")]), new("c"), policy=outer)
    for node in "abc":
        world.begin(node)
    return world


def test_groups_are_closed_from_the_inside_out() -> None:
    world = inner("strict", "strict", **FAIL)
    lose(world, "a")
    assert [state(world, name) for name in ("in", "x", "g")] == [NodeState.FAILED, NodeState.SKIPPED, NodeState.FAILED]
    assert dict(group_error(world).failed_tasks) == {
        "x": "not reached: a task before it failed",
        "c": NOT_WAITED_FOR,
    }
    assert world.status is RunStatus.FAILED


def test_an_outer_group_that_can_still_be_met_goes_on() -> None:
    world = inner("strict", "best_effort", **FAIL)
    lose(world, "a")
    assert [state(world, name) for name in ("in", "x", "g")] == [NodeState.FAILED, NodeState.SKIPPED, NodeState.RUNNING]
    assert world.stopped == ["run"], "b is not wanted any more"
    assert world.tell(NodeSucceeded("b", 1)).stale
    world.tell(NodeSucceeded("c", 1))
    world.engine.close_barrier(RUN, world.plan, "g")
    assert world.status is RunStatus.SUCCEEDED


def test_a_group_that_is_closed_early_arrives_at_the_barrier_around_it() -> None:
    nested = ParallelGroup([new("a", **FAIL), new("b")], name="in")
    world = group(nested, new("c"), policy="best_effort")
    for node in "abc":
        world.begin(node)
    world.tell(NodeSucceeded("c", 1))
    lose(world, "a")
    assert (CloseBarrier("g"), 0.0) in world.outbox.sent


def test_an_inner_group_that_can_be_met_keeps_the_outer_one_open() -> None:
    world = inner("best_effort", "strict", **FAIL)
    lose(world, "a")
    assert [state(world, name) for name in ("in", "x", "g")] == [NodeState.RUNNING, None, NodeState.RUNNING]
    assert world.stopped == []


def test_a_member_that_is_a_chain_fails_with_the_task_of_it_that_is_lost() -> None:
    world = group(SequentialTask([new("a", **FAIL), new("b"), new("c")]), new("d"))
    for node in "ad":
        world.begin(node)
    lose(world, "a")
    assert world.status is RunStatus.FAILED
    assert dict(group_error(world).failed_tasks) == {
        "c": "not reached: a task before it failed",
        "d": NOT_WAITED_FOR,
    }


def test_the_last_member_closes_its_group_once() -> None:
    world = group(new("a", **FAIL), new("b"), policy="strict")
    for node in "ab":
        world.begin(node)
    world.tell(NodeFailed("b", 1, "boom"))
    lose(world, "a")
    assert world.status is RunStatus.FAILED
    assert [event["event"] for event in world.store.events].count("group_failed") == 1
    assert world.engine.close_barrier(RUN, world.plan, "g").stale


def test_a_group_that_was_closed_before_is_left_alone() -> None:
    world = group(new("a", **FAIL), new("b"))
    world.begin("a")
    lose(world, "a")
    again = world.engine.close_if_hopeless(RUN, world.plan, "g")
    assert again is not None
    assert again.stale


def adding(policy: str) -> tuple[World, str, str]:
    """A member of a group added two tasks; the graph of them, and the key of the one that runs."""
    world = group(new("a"), new("b"), policy=policy)
    for node in "ab":
        world.begin(node)
    graph, made = world.add("a", new("x", **FAIL), new("y"))
    world.engine.deliver(RUN, world.plans.known[graph], NodeSucceeded("a", 1, (), made.key))
    member = Place.of(world.plans.known[graph], made.key).inside("x").key
    world.begin(member, graph=graph)
    return world, graph, member


def test_what_added_the_lost_task_fails_with_it_and_so_does_the_group_around() -> None:
    world, graph, member = adding("strict")
    lose(world, member, graph)
    assert [state(world, name) for name in ("a", "b", "g")] == [NodeState.FAILED, NodeState.RUNNING, NodeState.FAILED]
    assert world.status is RunStatus.FAILED
    assert world.stopped == ["run"]


def test_the_group_around_it_goes_on_if_it_can() -> None:
    world, graph, member = adding("best_effort")
    lose(world, member, graph)
    assert [state(world, name) for name in ("a", "b", "g")] == [NodeState.FAILED, NodeState.RUNNING, NodeState.RUNNING]
    assert world.status is RunStatus.RUNNING


# ------------------------------------------------------------------------------------ members that are held together


def test_of_members_that_were_held_together_each_goes_on_as_it_stands() -> None:
    """Those that nobody began share messages again; what ran is lost; what ended, or runs elsewhere, is let be."""
    world = group(*(new(f"m{number}") for number in range(8)))
    world.begin("m1")
    world.tell(NodeSucceeded("m1", 1))
    world.begin("m2")
    world.begin("m5", worker="other#1")
    held = Held(RUN, "g", 1, members=(0, 7))
    assert world.losses.left(RUN, held, "w#1", "its process died") == 5
    assert world.outbox.shared == [Members("g", 0, 1), Members("g", 3, 2), Members("g", 6, 1)]
    assert world.events("node_lost") == [
        ("m2", "its process died while it ran this; it runs again elsewhere (loss 1 of 3)")
    ]
    assert world.attempt("m1") == (NodeState.SUCCEEDED, 1)
    assert world.attempt("m5") == (NodeState.RUNNING, 1)
    assert world.attempt("m7") is None, "it was not held"


def test_members_of_a_worker_that_was_not_at_fault_count_no_loss() -> None:
    world = group(*(new(f"m{number}") for number in range(3)))
    world.begin("m1")
    held = Held(RUN, "g", 1, members=(0, 3))
    assert world.losses.left(RUN, held, "w#1", "its worker shut down", blameless=True, together=False) == 3
    assert world.outbox.shared == []
    assert [node for node, _ in world.events("node_returned")] == ["m0", "m1", "m2"]
    assert world.events("node_lost") == []
