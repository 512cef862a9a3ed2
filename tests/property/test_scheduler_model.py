"""Laws of the Scheduler, over random workflows, random outcomes and random orders of events."""

from __future__ import annotations

from hypothesis import event, given, settings
from hypothesis import strategies as st

from graflow_celery.core.state import RunStatus
from tests.property.driver import Driver, replay
from tests.property.model import model
from tests.property.shapes import Workflow, build, workflows


def ignore(*_: object) -> None: ...


@settings(max_examples=200, deadline=None)
@given(workflows(), st.integers(0, 2**32))
def test_a_run_does_what_the_naive_model_says_in_any_order(workflow: Workflow, seed: int) -> None:
    expected = model(workflow)
    driver = Driver(build(workflow), workflow, seed, ignore)
    state = driver.run()
    event("fails" if expected.fails else f"{len(driver.log) // 100 * 100}+ steps")
    if expected.fails:
        assert state.status is RunStatus.FAILED
        assert driver.ran.keys() <= expected.ran.keys()
    else:
        assert state.status is RunStatus.SUCCEEDED, f"{state.status}, waiting for {list(state.outbox)}"
        assert driver.ran == expected.ran
        assert driver.skipped == expected.skipped
    assert replay(driver.log) == state, "the log replays to the same state"


@settings(max_examples=150, deadline=None)
@given(workflows(timeouts=True), st.integers(0, 2**32))
def test_groups_whose_time_is_up_at_any_moment_leave_no_run_behind(workflow: Workflow, seed: int) -> None:
    expected = model(workflow)
    driver = Driver(build(workflow), workflow, seed, ignore)
    state = driver.run()
    event("timeouts" if workflow.has_timeouts else "no timeouts")
    assert state.status in (RunStatus.SUCCEEDED, RunStatus.FAILED), f"waiting for {list(state.outbox)}"
    assert workflow.has_timeouts or (state.status is RunStatus.FAILED) == expected.fails
    assert driver.ran.keys() <= expected.ran.keys() or workflow.has_timeouts
    assert replay(driver.log) == state


@settings(max_examples=100, deadline=None)
@given(workflows(timeouts=True), st.integers(0, 2**32), st.integers(1, 40))
def test_a_run_that_is_cancelled_at_any_moment_changes_no_more(workflow: Workflow, seed: int, steps: int) -> None:
    driver = Driver(build(workflow), workflow, seed, ignore, cancel_after=steps)
    state = driver.run()
    assert state.status.is_terminal
    if state.status is RunStatus.CANCELLED:
        assert (state.reason, dict(state.outbox)) == ("enough", {})
    assert replay(driver.log) == state


@settings(max_examples=100, deadline=None)
@given(workflows())
def test_closing_edges_are_told_from_the_others(workflow: Workflow) -> None:
    plan = build(workflow)
    found = {(node.id, target) for node in plan.nodes.values() for target in node.loops}
    assert found == {(source, target) for source, target in workflow.loops if source in plan.nodes}
    for name, targets in workflow.edges.items():
        back = {target for source, target in workflow.loops if source == name}
        assert set(plan[name].successors) == set(targets) - back
