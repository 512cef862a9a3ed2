"""What the monitor makes of nodes that have not ended for a while."""

from __future__ import annotations

import pytest

from graflow_celery.core.commands import DispatchNode, OpenGroup, OpenMembers
from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.events import MapExpanded, NodeFailed, NodeLost, NodeReturned, NodeSucceeded
from graflow_celery.core.expr import ParallelGroup
from graflow_celery.core.place import Place
from graflow_celery.core.state import NodeState
from graflow_celery.engine.inspection import LENIENCE, VOUCHED
from tests.unit.core.transcript import new, plan_of
from tests.unit.engine.world import NOW, RUN, World

RUNNING, QUEUED, FAILED = NodeState.RUNNING, NodeState.QUEUED, NodeState.FAILED
LEFT = "its message left the queue 'default', and no live worker has it"


def alone(**options: object) -> World:
    with WorkflowDefinition("w") as wf:
        wf.add(new("a", **options))
    return World(plan_of(wf))


def group_of(*members: str, policy: str = "strict", **options: object) -> World:
    with WorkflowDefinition("w") as wf:
        new("first") >> ParallelGroup([new(name, **options) for name in members], name="g", policy=policy)
    world = World(plan_of(wf))
    world.begin("first")
    world.tell(NodeSucceeded("first", 1))
    return world


def mapped(items: int, window: int | None = None) -> World:
    with WorkflowDefinition("w") as wf:
        new("first") >> new("m").map(over="items", max_parallel=window)
    world = World(plan_of(wf))
    world.channel.set("items", list(range(items)))
    world.begin("first")
    world.decide(NodeSucceeded("first", 1))
    return world


def expand(world: World) -> World:
    world.engine.carry_out(RUN, world.plan, [OpenGroup("m")])
    return world


# ------------------------------------------------------------------------------------ attempts that say they run


def test_what_a_live_worker_holds_is_vouched_for() -> None:
    world = alone()
    world.begin("a")
    world.worker("w#1", "a")
    assert world.inspect("a") == 0
    assert world.attempt("a") == (RUNNING, 1)
    assert world.ledger.eased == {"a": VOUCHED}
    assert world.ledger.forgotten == []


def test_an_attempt_whose_worker_is_gone_is_lost() -> None:
    world = alone()
    world.begin("a", "w#1")
    world.worker("w#2", "a")
    assert world.inspect("a") == 1
    assert world.attempt("a") == (QUEUED, 2)
    assert world.sent("a") == [1, 2]
    [(node, reason)] = world.events("node_lost")
    assert (node, reason) == ("a", "worker w is gone while it ran this; it runs again elsewhere (loss 1 of 3)")
    assert world.ledger.eased == {}


@pytest.mark.parametrize(("age", "lost"), [(3.0, 0), (3.1, 1)])
def test_a_worker_that_has_not_beaten_yet_has_the_time_of_a_lease(age: float, lost: int) -> None:
    world = alone()
    world.begin("a", at=NOW - age)
    assert world.inspect("a") == lost
    assert world.ledger.forgotten == []


def test_what_its_live_worker_does_not_hold_any_more_is_returned() -> None:
    world = alone()
    world.begin("a")
    world.worker("w#1", "a:2")
    assert world.inspect("a") == 1
    assert world.events("node_returned") == [("a", "worker w lives, and does not run it any more")]
    record = world.record("a")
    assert record is not None
    assert (record.attempt, record.losses) == (2, 0)


@pytest.mark.parametrize(("age", "returned"), [(1.5, 0), (1.6, 1)])
def test_a_beat_from_about_when_it_began_proves_nothing(age: float, returned: int) -> None:
    world = alone()
    world.begin("a", at=NOW - age)
    world.worker("w#1", age=0.5)
    assert world.inspect("a") == returned


@pytest.mark.parametrize(("past", "ended"), [(-1.0, 0), (LENIENCE, 0), (LENIENCE + 0.1, 1)])
def test_what_runs_past_its_time_limit_is_ended(past: float, ended: int) -> None:
    world = alone(time_limit=5)
    world.begin("a", at=NOW - 5 - past)
    world.worker("w#1", "a")
    assert world.inspect("a") == ended
    assert world.ledger.eased == {}, "it is looked at again before its time is up"
    if ended:
        assert world.events("node_failed") == [
            ("a", "'a' failed: TimeLimitError: it ran past its time_limit of 5 s on worker w")
        ]
        assert world.stopped == ["run"]


def test_one_past_its_time_whose_worker_is_gone_was_lost_rather_than_late() -> None:
    world = alone(time_limit=5)
    world.begin("a", at=NOW - 100)
    world.inspect("a")
    assert world.attempt("a") == (QUEUED, 2)
    assert world.events("node_failed") == []


def test_one_past_its_time_is_retried_if_it_may_be() -> None:
    world = alone(time_limit=5, max_retries=1)
    world.begin("a", at=NOW - 100)
    world.worker("w#1", "a")
    assert world.inspect("a") == 1
    record = world.record("a")
    assert record is not None
    assert (record.state, record.attempt, record.retries) == (QUEUED, 2, 1)


def test_an_attempt_that_ended_meanwhile_is_left_alone() -> None:
    world = alone()
    world.begin("a")
    late = world.late("a")
    world.tell(NodeFailed("a", 1, "boom"))
    world.inspection.begin([late])
    assert world.inspection.inspect(late) == 0
    assert world.stopped == []


# ------------------------------------------------------------------------------------ attempts that wait


def queued(**options: object) -> World:
    """Attempt 2 of a task waits; its queue has been turned over."""
    world = alone(**options)
    world.begin("a")
    world.tell(NodeReturned("a", 1, "r", "w#1"))
    world.worker("w#1")
    world.turn_over(str(options.get("queue", "default")))
    return world


def test_a_message_that_left_its_queue_and_is_held_by_nobody_is_sent_again() -> None:
    world = queued()
    world.ledger.since["a"] = NOW - 2
    assert world.inspect("a") == 1
    assert world.attempt("a") == (QUEUED, 3)
    assert world.events("node_returned")[1:] == [("a", LEFT)]


def test_a_message_is_not_missed_before_its_queue_has_been_turned_over() -> None:
    world = queued()
    world.ledger.since["a"] = NOW - 1
    assert world.inspect("a") == 0, "the look was one second after it was sent"
    world.now += 10
    assert world.inspect("a") == 1, "the next look was later"


def test_a_message_that_a_live_worker_holds_waits_there() -> None:
    world = queued()
    world.worker("w#1", "a:2")
    assert world.inspect("a") == 0
    world.worker("w#1", "a:1")
    world.now += 10
    assert world.inspect("a") == 1, "that is another attempt"


def test_what_is_just_sent_again_is_not_missed() -> None:
    world = queued()
    assert world.inspect("a", commands=[DispatchNode("a", 2)]) == 0
    assert world.ledger.forgotten == []


def test_the_queue_is_the_tasks_own() -> None:
    world = queued(queue="slow")
    world.worker("w#1", queues=("slow",))
    assert world.inspect("a") == 1
    assert world.ledger.notes == []
    assert world.events("node_returned")[1:] == [("a", LEFT.replace("default", "slow"))]


def test_beats_are_read_after_the_counts() -> None:
    """A message that is counted as received is in a beat that is read from then on."""
    with WorkflowDefinition("w") as wf:
        new("first") >> ParallelGroup([new("a", queue="q1"), new("b", queue="q2")], name="g", policy="strict")
    world = World(plan_of(wf))
    world.begin("first")
    world.tell(NodeSucceeded("first", 1))
    for node in "ab":
        world.tell(NodeReturned(node, 1, "r"))
    world.worker("w#1", "a:2", queues=("q1", "q2"))
    world.turn_over("q1", "q2")
    up_to = world.turnover.up_to

    def received(queue: str, now: float) -> float:
        if queue == "q2":
            world.worker("w#1", "a:2", "b:2", queues=("q1", "q2"))
        return up_to(queue, now)

    world.turnover.up_to = received  # type: ignore[method-assign]
    assert world.inspect("a", "b") == 0


# ------------------------------------------------------------------------------------ what needs no look any more


def test_what_has_ended_or_waits_for_a_person_is_forgotten() -> None:
    world = alone()
    assert world.inspect() == 0
    world.begin("a")
    world.tell(NodeSucceeded("a", 1))
    assert world.inspect("a", "unknown") == 0
    assert world.ledger.forgotten == ["a", "unknown"]


def test_what_is_in_a_group_that_has_ended_is_forgotten() -> None:
    world = group_of("a", "b")
    world.begin("a")
    world.begin("b")
    world.tell(NodeFailed("a", 1, "boom"))
    world.engine.close_if_hopeless(RUN, world.plan, "g")
    late = world.late("b", "g")
    world.inspection.begin([late])
    assert world.inspection.inspect(late) == 0
    assert sorted(world.ledger.forgotten) == ["b", "g"]
    assert world.attempt("b") == (RUNNING, 1)


# ------------------------------------------------------------------------------------ groups


def test_first_members_that_nobody_has_are_sent_again_and_the_group_is_done() -> None:
    world = group_of("a", "b", "c")
    world.begin("c")
    world.worker("w#1")
    world.turn_over()
    assert world.inspect("g") == 2
    assert [world.attempt(node) for node in "abc"] == [(QUEUED, 2), (QUEUED, 2), (RUNNING, 1)]
    assert world.events("node_returned") == [("a", LEFT), ("b", LEFT)]
    assert world.ledger.forgotten == ["g"]


def test_a_group_whose_queue_has_not_been_turned_over_is_looked_at_again() -> None:
    world = group_of("a", "b")
    world.worker("w#1")
    world.ledger.since["g"] = NOW
    assert world.inspect("g") == 0
    assert (world.ledger.forgotten, world.ledger.eased) == ([], {"g": 2.0}), "in a moment more is known of the queue"
    assert world.ledger.hurried == [2.0]


def test_members_that_a_worker_holds_keep_the_group_in_sight() -> None:
    world = group_of("a", "b")
    world.worker("w#1", "a")
    world.turn_over()
    assert world.inspect("g") == 1
    assert [world.attempt(node) for node in "ab"] == [None, (QUEUED, 2)]
    assert (world.ledger.forgotten, world.ledger.eased) == ([], {"g": VOUCHED})
    world.worker("w#1")
    world.now += 10
    assert world.inspect("g") == 1
    assert world.ledger.forgotten == ["g"]


def test_members_wait_in_queues_of_their_own() -> None:
    with WorkflowDefinition("w") as wf:
        new("first") >> ParallelGroup([new("a"), new("b", queue="slow")], name="g", policy="strict")
    world = World(plan_of(wf))
    world.begin("first")
    world.tell(NodeSucceeded("first", 1))
    world.worker("w#1", queues=("default", "slow"))
    world.depths["slow"] = 5
    world.turn_over("default", "slow")
    assert world.inspect("g") == 1
    assert [world.attempt(node) for node in "ab"] == [(QUEUED, 2), None]
    assert (world.ledger.forgotten, world.ledger.eased) == ([], {})


def test_a_member_that_has_begun_does_not_keep_the_group_in_sight() -> None:
    with WorkflowDefinition("w") as wf:
        new("first") >> ParallelGroup([new("a"), new("b", queue="slow")], name="g", policy="strict")
    world = World(plan_of(wf))
    world.begin("first")
    world.tell(NodeSucceeded("first", 1))
    world.begin("b")
    world.worker("w#1", queues=("default", "slow"))
    world.depths["slow"] = 5
    world.turn_over("default", "slow")
    assert world.inspect("g") == 1
    assert world.ledger.forgotten == ["g"]


def test_a_group_that_is_just_sent_again_is_not_missed() -> None:
    world = group_of("a", "b")
    world.worker("w#1")
    world.turn_over()
    assert world.inspect("g", commands=[OpenGroup("g")]) == 0
    assert world.ledger.forgotten == []


def test_a_group_of_groups_has_no_messages_of_its_own() -> None:
    with WorkflowDefinition("w") as wf:
        inner = [ParallelGroup([new(name)], name=f"g{name}") for name in "ab"]
        new("first") >> ParallelGroup(inner, name="g")
    world = World(plan_of(wf))
    world.begin("first")
    world.tell(NodeSucceeded("first", 1))
    world.worker("w#1")
    assert world.inspect("g", "ga") == 0
    assert world.ledger.forgotten == ["g"], "whatever is in its queue"
    world.now += 10
    assert world.inspect("ga") == 1
    assert world.attempt("a") == (QUEUED, 2)


def test_members_of_a_chain_that_come_later_are_not_missed() -> None:
    with WorkflowDefinition("w") as wf:
        new("first") >> ParallelGroup([new("a") >> new("b"), new("c")], name="g")
    world = World(plan_of(wf))
    world.begin("first")
    world.tell(NodeSucceeded("first", 1))
    world.worker("w#1", "a", "c")
    world.turn_over()
    assert world.inspect("g") == 0
    assert world.attempt("b") is None


def test_items_that_were_not_counted_yet_are_waited_for() -> None:
    world = mapped(3)
    world.worker("w#1")
    world.turn_over()
    assert world.inspect("m") == 0
    assert world.ledger.forgotten == []


def test_members_of_a_mapped_task_are_missed_too() -> None:
    world = expand(mapped(3))
    world.begin("m[1]")
    world.worker("w#1")
    world.turn_over()
    assert world.inspect("m") == 2
    assert [world.attempt(f"m[{index}]") for index in range(3)] == [(QUEUED, 2), (RUNNING, 1), (QUEUED, 2)]
    again = expand(mapped(3))
    again.worker("w#1")
    again.turn_over()
    assert again.inspect("m", commands=[OpenMembers("m", 0, 3, 3)]) == 0


def test_of_members_that_start_a_few_at_a_time_only_the_first_are_missed() -> None:
    world = expand(mapped(5, window=2))
    world.worker("w#1")
    world.turn_over()
    assert world.inspect("m") == 2
    assert world.attempt("m[2]") is None


def test_a_mapped_task_without_items_has_no_members() -> None:
    world = mapped(0)
    world.decide(MapExpanded("m", 0))
    world.store.put_inputs(RUN, {"m": 0})
    assert world.inspect("m") == 0
    assert world.ledger.forgotten == ["m"]


def test_tasks_that_were_added_are_seen_to() -> None:
    world = alone()
    world.begin("a")
    graph, made = world.add("a", new("x"), new("y"))
    world.engine.deliver(RUN, world.plans.known[graph], NodeSucceeded("a", 1, (), made.key))
    world.worker("w#1")
    world.turn_over()
    assert world.inspect(made.key) == 2
    inside = Place.of(world.plans.known[graph], made.key).inside
    assert [world.attempt(inside(name).key) for name in "xy"] == [(QUEUED, 2), (QUEUED, 2)]
    assert world.ledger.forgotten == [made.key]


# ------------------------------------------------------------------------------------ queues that nobody serves


def stalled(world: World) -> list[str]:
    return [str(fields["reason"]) for event, fields in world.ledger.notes if event == "run_stalled"]


def test_that_nobody_serves_a_queue_is_noted_once_and_again_after_somebody_did() -> None:
    world = queued(queue="slow")
    del world.workforce.leases["w#1"]
    world.worker("w#2")
    for _ in range(3):
        world.now += 1
        world.inspect("a")
    assert stalled(world) == ["no live worker consumes the queue slow"]
    world.worker("w#2", "a:3", queues=("slow",))
    world.inspect("a")
    world.worker("w#2", "a:3")
    world.inspect("a")
    assert len(stalled(world)) == 2


def test_looks_at_other_nodes_of_the_run_change_nothing_in_that() -> None:
    world = group_of("a", "b", queue="slow")
    world.begin("a")
    world.tell(NodeReturned("b", 1, "r"))
    world.worker("w#1", "a")
    for _ in range(3):
        world.inspect("b")
        world.inspect("a")
    assert stalled(world) == ["no live worker consumes the queue slow"]


def test_a_group_on_a_queue_that_nobody_serves_is_told_of() -> None:
    world = group_of("a", "b", queue="slow")
    world.depths["slow"] = 2
    world.worker("w#1")
    world.inspect("g")
    assert stalled(world) == ["no live worker consumes the queue slow"]


def test_runs_that_are_not_looked_at_any_more_are_not_kept_in_mind() -> None:
    world = queued(queue="slow")
    world.worker("w#1")
    world.inspect("a")
    world.now += VOUCHED
    world.inspect("a")
    assert len(stalled(world)) == 2


def test_a_lost_attempt_that_fails_its_run_counts_as_seen_to() -> None:
    world = alone(on_worker_loss="fail")
    world.begin("a")
    assert world.inspect("a") == 1
    assert world.attempt("a") == (FAILED, 1)
    assert isinstance(world.store.error(RUN, "a"), Exception)
    assert world.tell(NodeLost("a", 1, 0, 3, "r", "w#1")).stale
