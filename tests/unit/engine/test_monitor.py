"""One look at everything that is late: deaths, commands, nodes; and when the next look is worth while."""

from __future__ import annotations

import pytest

from graflow_celery.core.commands import CloseBarrier, Command, DispatchNode, ExpireGroup, OpenGroup
from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.events import FeedbackRequested, NodeReturned, NodeSucceeded
from graflow_celery.core.expr import ParallelGroup
from graflow_celery.core.state import NodeState, RunStatus
from graflow_celery.engine.monitor import SHORTEST
from graflow_celery.ports import Death, Held, RunRef
from tests.unit.core.transcript import new, plan_of
from tests.unit.engine.world import World

RUNNING, QUEUED = NodeState.RUNNING, NodeState.QUEUED


def of_group(**options: object) -> World:
    with WorkflowDefinition("w") as wf:
        members = [new(name, **options) for name in "abc"]
        new("first") >> ParallelGroup(members, name="g", timeout=60.0) >> new("then")
    world = World(plan_of(wf))
    world.begin("first")
    world.tell(NodeSucceeded("first", 1))
    world.outbox.sent.clear()
    return world


def test_a_dead_workers_attempts_are_taken_over() -> None:
    world = of_group()
    world.begin("a", "w#1")
    world.dies("w#1", "a", "b")
    assert world.monitor.tick() == 2
    assert [world.attempt(node) for node in "abc"] == [(QUEUED, 2), (QUEUED, 2), None]
    cause = "worker w (pid 7) died or hangs (its last beat was 4.2 s ago)"
    assert world.events("node_lost") == [("a", f"{cause} while it ran this; it runs again elsewhere (loss 1 of 3)")]
    assert world.events("node_returned") == [("b", f"{cause} before it began this")]
    assert world.workforce.buried == ["w#1"]
    assert world.monitor.tick() == 0
    assert world.ledger.sweeps == [True, False], "what no beat told of is looked for once"


def test_a_death_that_was_seen_reads_otherwise() -> None:
    world = of_group()
    world.begin("a", "w#1")
    world.dies("w#1", "a", reported=True, pid=0)
    world.monitor.tick()
    [(_, reason)] = world.events("node_lost")
    assert reason.startswith("worker w died (its process ended; its last beat was 4.2 s ago) while it ran this;")


def test_what_a_dead_worker_held_and_others_have_by_now_is_theirs() -> None:
    world = of_group()
    world.begin("a", "w#2")
    world.begin("b", "w#1")
    world.tell(NodeReturned("b", 1, "r", "w#1"))
    world.begin("c", "w#1")
    world.tell(FeedbackRequested("c", 1, "q", None))
    world.dies("w#1", "a", "b", "c:2", "first")
    assert world.monitor.tick() == 0
    assert [world.attempt(node) for node in "abc"] == [(RUNNING, 1), (QUEUED, 2), (NodeState.WAITING, 2)]
    assert world.workforce.buried == ["w#1"]


def test_a_queued_attempt_that_it_had_received_is_sent_again() -> None:
    world = of_group()
    world.begin("a", "w#2")
    world.tell(NodeReturned("a", 1, "r", "w#2"))
    world.dies("w#1", "a:2")
    assert world.monitor.tick() == 1
    assert world.attempt("a") == (QUEUED, 3)


def test_a_worker_that_beats_again_is_not_buried() -> None:
    world = of_group()
    world.begin("a", "w#1")
    world.dies("w#1", "a")
    world.workforce.beating.add("w#1")
    assert world.monitor.tick() == 1
    assert world.workforce.buried == []
    assert world.tell(NodeSucceeded("a", 1)).stale, "it is too late for it all the same"


def test_a_death_among_runs_of_which_one_has_lost_its_graph() -> None:
    world = of_group()
    world.begin("a", "w#1")
    world.dies("w#1", "a")
    world.plans.gone = True
    assert world.monitor.tick() == 0
    assert world.status is RunStatus.FAILED
    assert "graph" in world.store.state.reason
    assert world.workforce.buried == ["w#1"]


def test_a_dead_worker_that_held_nothing_is_buried() -> None:
    world = of_group()
    world.workforce.dead.append(Death("w#1", "w", 0, 3.1, False, ()))
    assert world.monitor.tick() == 0
    assert world.workforce.buried == ["w#1"]


def test_attempts_of_a_run_that_is_not_there_are_let_go() -> None:
    world = of_group()
    world.store.state.nodes.clear()
    world.store.state.status = RunStatus.CANCELLED
    world.workforce.dead.append(Death("w#1", "w", 0, 3.1, False, (Held(RunRef("run", "graph"), "a", 1),)))
    assert world.monitor.tick() == 0
    assert world.workforce.buried == ["w#1"]


def test_late_commands_are_carried_out_and_noted() -> None:
    world = of_group()
    commands: list[Command] = [OpenGroup("g"), DispatchNode("a", 1), CloseBarrier("g")]
    world.ledger.items = [world.late(commands=commands)]
    assert world.monitor.tick() == 3
    assert [command for command, _ in world.outbox.sent] == commands[:2]
    assert world.store.state.nodes["g"].state.is_final, "closed here: a message could get lost"
    again = "that were committed and not known to be sent, are sent again"
    fired = "to close barriers that nobody closed, are carried out"
    assert world.ledger.notes == [
        ("carried_out", {"count": 2, "reason": again, "worker": "me"}),
        ("carried_out", {"count": 1, "reason": fired, "worker": "me"}),
    ]


def test_a_timer_is_carried_out_without_a_note() -> None:
    world = of_group()
    world.ledger.items = [world.late(commands=[ExpireGroup("g")])]
    assert world.monitor.tick() == 1
    assert world.status is RunStatus.FAILED
    assert world.ledger.notes == []


def test_late_nodes_are_inspected() -> None:
    world = of_group()
    world.begin("a", "w#1")
    world.ledger.items = [world.late("a")]
    assert world.monitor.tick() == 1
    assert world.attempt("a") == (QUEUED, 2)


@pytest.mark.parametrize("what", ["nodes", "commands"])
def test_a_run_whose_graph_is_gone_is_ended_and_the_others_are_seen_to(what: str) -> None:
    world = of_group()
    world.begin("a", "w#1")
    late = world.late("a") if what == "nodes" else world.late(commands=[OpenGroup("g")])
    world.ledger.items = [late, late]
    world.plans.gone = True
    assert world.monitor.tick() == 0
    assert world.status is RunStatus.FAILED
    assert world.ledger.items == []


def test_a_run_whose_graph_may_be_put_back_goes_on() -> None:
    world = of_group()
    world.begin("a", "w#1")
    world.ledger.items = [world.late("a")]
    world.plans.gone = world.ledger.begs = True
    world.monitor.tick()
    assert (world.status, world.ledger.missed) == (RunStatus.RUNNING, ["graph"])
    world.ledger.items, world.ledger.begs = [world.late("a")], False
    world.monitor.tick()
    assert world.status is RunStatus.FAILED


def test_one_that_does_not_lead_does_nothing() -> None:
    world = of_group()
    world.workforce.leader = "another"
    world.begin("a", "w#1")
    world.dies("w#1", "a")
    assert world.monitor.tick() == 0
    assert not world.monitor.leads
    assert (world.attempt("a"), world.ledger.sweeps) == ((RUNNING, 1), [])


def test_it_looks_again_when_something_can_be_late() -> None:
    world = of_group()
    world.workforce.next_expiry, world.ledger.next_look = 0.0, 0.0
    assert world.monitor.patience(1.0) == 1.0, "one that does not lead has nothing to look at"
    world.monitor.tick()
    assert world.monitor.patience(1.0) == SHORTEST
    world.workforce.next_expiry, world.ledger.next_look = 0.7, None
    assert world.monitor.patience(1.0) == 0.7
    world.workforce.next_expiry, world.ledger.next_look = 0.7, 0.3
    assert world.monitor.patience(1.0) == 0.3
    world.workforce.next_expiry = world.ledger.next_look = None
    assert world.monitor.patience(1.0) == 1.0


def test_what_no_beat_of_a_dead_worker_told_of_is_lost_with_its_death() -> None:
    world = of_group()
    world.begin("a", "w#1", at=world.now)
    world.dies("w#1")
    del world.workforce.leases["w#1"]  # as when it is buried
    world.ledger.items = [world.late("a")]
    assert world.monitor.tick() == 1
    [(node, reason)] = world.events("node_lost")
    assert node == "a"
    assert reason.startswith("worker w (pid 7) died or hangs (its last beat was 4.2 s ago) while it ran this;")
