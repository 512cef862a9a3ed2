"""Laws of the Scheduler, over random workflows, random outcomes and random orders of events."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from graflow_celery.core.state import RunState, RunStatus, Transition
from tests.property.driver import Driver
from tests.property.shapes import Workflow, build, model, workflows


@settings(max_examples=400, deadline=None)
@given(workflows(), st.integers(0, 2**32))
def test_a_run_does_what_the_naive_model_says_in_any_order(workflow: Workflow, seed: int) -> None:
    expected = model(workflow)
    plan = build(workflow)
    log: list[Transition] = []
    driver = Driver(plan, expected.succeeds, seed, lambda transition, *_: log.append(transition))
    state = driver.run()
    assert len(driver.ran) == len(set(driver.ran)), "a node ran twice"
    if expected.fails:
        assert state.status is RunStatus.FAILED
        assert set(driver.ran) <= set(expected.succeeds)
    else:
        assert state.status is RunStatus.SUCCEEDED
        assert set(driver.ran) == expected.ran
        assert not state.outbox
    assert replay(log) == state, "the log replays to the same state"


def replay(log: list[Transition]) -> RunState:
    state = RunState()
    for transition in log:
        state.apply(transition)
    return state
