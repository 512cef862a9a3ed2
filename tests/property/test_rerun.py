"""A run that ended too early and is retried comes to the end of an undisturbed one, and nothing kept runs again."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from graflow_celery.core.activation import node_of
from graflow_celery.core.events import BarrierReached, CancelRequested, NodeFailed, NodeSkipped
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.core.policy import StrictGroupPolicy
from graflow_celery.core.rerun import Homes, Rerun, activations, rerun
from graflow_celery.core.state import NodeState, RunState, RunStatus
from tests.property.driver import Begin, Driver, _Code, _number
from tests.property.model import acts_of, model
from tests.property.shapes import Workflow, build, workflows


def ignore(*_: object) -> None: ...


class Faulty(Driver):
    """Now and then a task fails for good, where its group cannot do without it."""

    def __init__(self, workflow: Workflow, seed: int, faults: float, cancel_after: int = -1) -> None:
        super().__init__(build(workflow), workflow, seed, ignore, cancel_after)
        self.faults = faults
        self.faulty = random.Random(seed + 1)

    def _end(self, code: _Code) -> None:
        if self.state.status.is_terminal:
            return  # what it does counts for nothing, so it is still to be played
        place = Place.of(self._plans[code.graph], code.node)
        acts = acts_of(self._workflow, place.spec.id, sum(_number(item) for item in place.passes))
        if self._played[code.node] == len(acts):  # it came to its end after its group's time was up
            self._played[code.node] = 0
        if self.is_needed(code.node, code.graph) and self.faulty.random() < self.faults:
            self._deliver(code.graph, NodeFailed(code.node, code.attempt, "boom", retryable=False))
        else:
            super()._end(code)

    def is_needed(self, node: str, graph: str) -> bool:
        place = Place.of(self._plans[graph], node)
        if not all(isinstance(place.plan[scope].policy, StrictGroupPolicy) for scope in place.scopes):
            return False
        owner = place.plan[place.scopes[-1]].owner if place.scopes else None
        return owner is None or self.is_needed(owner.node, owner.graph)


class Retried(Faulty):
    """Goes on with a run that ended. What is left of it comes late: messages, code, barriers, its monitor."""

    def __init__(
        self, ended: Driver, workflow: Workflow, seed: int, chosen: tuple[str, ...] = (), faults: float = 0.0
    ) -> None:
        super().__init__(workflow, seed, faults)
        self.ended = ended
        before = ended.state.copy()
        self.made: Rerun = rerun(ended.state, ended._plans.__getitem__, chosen)
        assert before == ended.state, "retrying changes nothing of what is retried"
        self.state = self.made.state
        self.specs = dict(ended.specs)
        self._plans = {graph: replace(plan, first=self.state.first) for graph, plan in ended._plans.items()}
        self.base = self._plans[""]
        self._played.update({key: count for key, count in ended._played.items() if not self.is_anew(key, chosen)})
        self._pending = [emission.command for emission in self.made.emissions]
        self._past = [
            *((plan, event) for plan, event in ended._past if not isinstance(event, CancelRequested)),
            *self.old_ends(ended._plans),
        ]
        self.log = [Begin(self.base, "start", 0, "", (), "")]  # it was started before
        self.check()

    def is_anew(self, key: str, chosen: tuple[str, ...]) -> bool:
        return bool(chosen) and (key in chosen or key in self.made.undone)

    def old_ends(self, plans: Mapping[str, Plan]) -> list[tuple[Plan, BarrierReached | NodeSkipped]]:
        """An old command to close a barrier, and one to skip a node, for everything that there was."""
        found: list[tuple[Plan, BarrierReached | NodeSkipped]] = []
        homes = Homes(self.ended.state)
        for key in self.ended.state.nodes:
            plan = plans[homes[key]]
            found.append((plan, BarrierReached(key, None) if plan[key].is_group else NodeSkipped(key)))
        return found

    def check(self) -> None:
        if self.made.emissions:
            self.state.check()
        mirrors = self.mirrors()
        assert self.made.kept.isdisjoint(self.made.again | self.made.undone)
        for key in self.made.kept - mirrors:
            if key in self.ended.state.nodes:
                assert self.state.nodes[key] == self.ended.state.nodes[key], f"{key} is kept, and changed"
        for key in self.made.again:
            record = self.state.nodes[key]
            assert not record.state.is_final
            assert (record.losses, record.retries) == (0, 0)
            assert record.attempt in (0, self.state.first), key

    def mirrors(self) -> set[str | None]:
        return {
            Place.of(plan, key).mirror for plan in self._plans.values() for key in self.ended.state.nodes if key in plan
        }

    def step(self) -> bool:
        going = super().step()
        key, record = self.faulty.choice(list(self.ended.state.nodes.items()))  # an old message of it arrives
        attempt = self.faulty.randint(1, max(1, record.attempt))
        scopes = Place.of(self._plans[Homes(self.ended.state)[key]], key).scopes
        assert self.state.copy().begin(key, attempt, "zombie", scopes) is None, f"{key} #{attempt} came back"
        return going


def without_faults(workflow: Workflow) -> Workflow:
    acts = {name: [act for act in script if act.kind not in ("fail", "lose")] for name, script in workflow.acts.items()}
    return replace(workflow, acts=acts)


def states(state: RunState) -> dict[str, NodeState]:
    """How the nodes of the workflow as written stand. Keys of added tasks differ with the attempt that added them."""
    homes = Homes(state)
    return {key: record.state for key, record in state.nodes.items() if not homes[key]}


@settings(max_examples=80, deadline=None)
@given(workflows().map(without_faults), st.integers(0, 2**32), st.sampled_from([0.05, 0.2, 0.5]), st.integers(-60, 60))
def test_with_the_fault_removed_it_comes_to_the_end_of_an_undisturbed_run(
    workflow: Workflow, seed: int, faults: float, cancel: int
) -> None:
    expected, undisturbed = model(workflow), Driver(build(workflow), workflow, seed, ignore).run()
    assert not expected.fails
    run: Driver = Faulty(workflow, seed, faults, cancel)
    run.run()
    ran = run.ran
    event(f"ended {run.state.status}")
    tries = 0
    while run.state.status is not RunStatus.SUCCEEDED:
        tries += 1
        run = Retried(run, workflow, seed + tries, faults=faults if tries < 3 else 0.0)
        assert run.made.emissions, "there is something to run again"
        run.run()
        ran += run.ran
    event(f"after {tries} retries")
    assert ran == expected.ran, f"not played once: {ran - expected.ran}, not at all: {expected.ran - ran}"
    assert states(run.state) == states(undisturbed)
    assert run.state.ended >= sum(state.is_final for state in states(undisturbed).values()) - len(run.state.nodes)


@settings(max_examples=50, deadline=None)
@given(workflows().map(without_faults), st.integers(0, 2**32), st.data())
def test_a_node_that_succeeded_runs_again_with_what_comes_after_it(
    workflow: Workflow, seed: int, data: st.DataObject
) -> None:
    first = Driver(build(workflow), workflow, seed, ignore)
    first.run()
    keys = sorted(key for key, record in first.state.nodes.items() if record.state is NodeState.SUCCEEDED)
    node = node_of(data.draw(st.sampled_from(keys)))
    chosen = activations(first.state, first._plans.__getitem__, node)
    assume(chosen)
    second = Retried(first, workflow, seed + 1, chosen)
    assert second.made.emissions
    state = second.run()
    assert state.status is RunStatus.SUCCEEDED, f"{state.status}, waiting for {list(state.outbox)}"
    assert states(state) == states(first.state)
    if not first._plans[Homes(first.state)[chosen[0]]][node].is_group:
        assert second.ran[node], "what was chosen ran"
    for name, count in second.ran.items():
        assert count <= first.ran[name], name


@settings(max_examples=25, deadline=None)
@given(workflows().map(without_faults), st.integers(0, 2**32))
def test_what_succeeded_leaves_nothing_to_run_again(workflow: Workflow, seed: int) -> None:
    run = Driver(build(workflow), workflow, seed, ignore)
    run.run()
    made = rerun(run.state, run._plans.__getitem__)
    assert not made.emissions
    assert not made.again
    assert not made.undone


@settings(max_examples=50, deadline=None)
@given(workflows(timeouts=True), st.integers(0, 2**32), st.integers(1, 60))
def test_with_faults_that_stay_and_groups_whose_time_is_up_it_ends_again(
    workflow: Workflow, seed: int, cancel: int
) -> None:
    first = Faulty(workflow, seed, 0.0, cancel)
    first.run()
    assume(first.state.status is not RunStatus.SUCCEEDED)
    second = Retried(first, workflow, seed + 1)
    assert second.made.emissions
    state = second.run()
    assert state.status in (RunStatus.SUCCEEDED, RunStatus.FAILED), f"{state.status}, waiting for {list(state.outbox)}"
