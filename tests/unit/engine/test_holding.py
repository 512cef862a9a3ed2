"""Whether an attempt is held, by whom: named by itself, or one of the members that are held together."""

from __future__ import annotations

from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.expr import ParallelGroup
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.engine.holding import Holding
from graflow_celery.ports import Held
from tests.unit.core.transcript import new, plan_of, tasks
from tests.unit.engine.world import RUN


def group() -> Plan:
    with WorkflowDefinition("w") as wf:
        new("first") >> ParallelGroup(tasks([f"m{number}" for number in range(6)]), name="g")
    return plan_of(wf)


def test_an_attempt_that_is_named_is_held_as_that_attempt_alone() -> None:
    plan = group()
    holding = Holding({"w1": [Held(RUN, "first", 2)]})
    assert holding.worker(RUN.id, Place.of(plan, "first"), 2) == "w1"
    assert not holding.has(RUN.id, Place.of(plan, "first"), 1)
    assert not holding.has("another", Place.of(plan, "first"), 2)
    assert not holding.has(RUN.id, Place.of(plan, "m0"), 2)


def test_members_that_are_held_together_are_held_from_the_first_to_the_last() -> None:
    plan = group()
    holding = Holding({"w1": [Held(RUN, "g", 1, members=(1, 2))], "w2": [Held(RUN, "g", 1, members=(4, 1))]})
    found = [holding.worker(RUN.id, Place.of(plan, f"m{number}"), 1) for number in range(6)]
    assert found == [None, "w1", "w1", None, "w2", None]
    assert not holding.has(RUN.id, Place.of(plan, "m1"), 2), "another attempt of a member is by itself"
    assert not holding.has(RUN.id, Place.of(plan, "first"), 1)
    assert not holding.has("another", Place.of(plan, "m1"), 1)


def test_items_of_a_mapped_task_are_found_by_their_numbers() -> None:
    with WorkflowDefinition("w") as wf:
        wf.add(new("m").map(over="numbers"))
    plan = plan_of(wf)
    holding = Holding({"w1": [Held(RUN, "m", 1, members=(10, 5)), Held(RUN, "m[3]", 2)]})
    held = [number for number in range(20) if holding.has(RUN.id, Place.of(plan, f"m[{number}]"), 1)]
    assert held == [10, 11, 12, 13, 14]
    assert holding.worker(RUN.id, Place.of(plan, "m[3]"), 2) == "w1"
