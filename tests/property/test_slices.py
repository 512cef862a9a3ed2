"""Steps that are taken together come to what they come to one at a time, whoever takes them, however they are cut."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graflow_celery.celery_backend.app import create_app
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.commands import Command, DispatchNode
from graflow_celery.core.state import Applied, Leave, RunState
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.ports import Answer, Asked, Attempt, Begun, Outcome
from graflow_celery.ports import Step as StoreStep
from graflow_celery.redis_backend.events import EventReader
from graflow_celery.settings import Settings
from tests.property.driver import Begin, Driver, Step
from tests.property.shapes import Workflow, build, workflows
from tests.property.test_store_twins import Twin, as_record, told

HOLDERS = ("w0", "w1")


@pytest.fixture(scope="module")
def runtime() -> Iterator[Runtime]:
    with EmbeddedServer() as server:
        chosen = Settings(redis_url=server.url)
        yield Runtime(create_app(chosen), chosen)


@dataclass(frozen=True)
class Variation:
    """How a beginning is asked for besides: as what follows from a step before it, or once more, or taken back, and by
    whom."""

    reached: bool = False
    renews: bool = False
    answers: bool = False
    other: bool = False
    returns: bool = False

    def of(self, step: Begin) -> dict[str, bool | Command | None]:
        command = DispatchNode(step.node, step.attempt, step.graph) if self.answers else None
        return {"reached": self.reached, "renews": self.renews, "returns": self.returns, "answers": command}

    def worker(self, step: Begin) -> str:
        return HOLDERS[HOLDERS.index(step.worker) - 1] if self.other else step.worker


def varied(rolls: random.Random) -> Variation:
    return Variation(*(rolls.random() < 0.5 for _ in range(4)))


cuts = st.lists(st.integers(1, 12), min_size=1, max_size=30)


class Log:
    """The steps of a random run, and of each the steps that are tried besides."""

    def __init__(self, workflow: Workflow, seed: int) -> None:
        self.steps: list[tuple[Step, Variation]] = []
        driver, rolls = Driver(build(workflow), workflow, seed, lambda *_: None), random.Random(seed)
        driver.run()
        for step in driver.log:
            if not isinstance(step, Begin):
                self.steps.append((step, Variation()))
                continue
            if rolls.random() < 0.3:  # before it has leave
                self.steps.append((step, varied(rolls)))
            self.steps.append((step, Variation(answers=rolls.random() < 0.5)))
            if rolls.random() < 0.3:  # when it has
                self.steps.append((step, varied(rolls)))
            if rolls.random() < 0.3:  # it goes back, if it is its holder's to give, and has leave once more
                self.steps.append((step, Variation(other=rolls.random() < 0.3, returns=True)))
                self.steps.append((step, Variation()))

    def expected(self) -> tuple[RunState, list[Leave | Applied | None]]:
        """What memory comes to, one step at a time."""
        state = RunState()
        said: list[Leave | Applied | None] = []
        for step, variation in self.steps:
            if isinstance(step, Begin):
                asked = variation.of(step)
                said.append(
                    state.begin(
                        step.node,
                        step.attempt,
                        variation.worker(step),
                        step.scopes,
                        step.graph,
                        **asked,  # type: ignore[arg-type]
                    )
                )
            else:
                said.append(state.apply(step))
        return state, said


class Sliced(Twin):
    """Takes the steps of a log in Redis, some at a time."""

    def take(self, log: Log, sizes: Sequence[int]) -> list[Leave | Applied | None]:
        said: list[Leave | Applied | None] = []
        (first, _), *rest = log.steps
        assert not isinstance(first, Begin)
        said.append(self.store.create(self.run, first, {"workflow": "random", "tasks": 1}))
        number = 0
        while rest:
            part = self._alike(rest[: sizes[number % len(sizes)]])
            said += [plain(answer) for answer in self.store.advance(self.run, part)]
            rest, number = rest[len(part) :], number + 1
        return said

    def _alike(self, steps: Sequence[tuple[Step, Variation]]) -> list[StoreStep]:
        """As many of them as one holder takes together."""
        part: list[StoreStep] = []
        holder = ""
        for step, variation in steps:
            if isinstance(step, Begin):
                worker = variation.worker(step)
                if holder not in ("", worker):
                    break
                holder = worker
                attempt = Attempt(self.run, step.plan, step.node, step.attempt, worker, worker)
                part.append(Asked(attempt, step.scopes, (), **variation.of(step)))  # type: ignore[arg-type]
            else:
                part.append(self.store.change(self.run, step, Outcome()))
        return part

    def left(self, state: RunState) -> None:
        """What is left in the end is what is left in memory."""
        keys = list(state.nodes)
        found = dict(zip(keys, self.store.reports(self.run, keys), strict=True))
        assert {key: as_record(found[key]) for key in keys} == state.nodes
        details = self.store.details(self.run.id)
        assert (details["status"], int(details["outstanding"])) == (state.status, state.outstanding)
        assert (int(details.get("ended", 0)), int(details.get("steps", 0))) == (state.ended, state.steps)
        if not state.status.is_terminal:
            self.compare_outbox(state, float(details["started"]) / 1000)
        self.compare_watch(state)

    def events(self) -> list[dict[str, object]]:
        reader = EventReader(self.runtime.client, self.runtime.keys.run(self.run.id).events)
        return [told(record) for record in reader.history()]


def plain(answer: Answer) -> Leave | Applied | None:
    assert answer is None or isinstance(answer, Begun | Applied)
    return answer.leave if isinstance(answer, Begun) else answer


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(workflows(timeouts=True), st.integers(0, 2**32), cuts)
def test_steps_that_are_taken_together_come_to_what_they_come_to_one_at_a_time(
    runtime: Runtime, workflow: Workflow, seed: int, sizes: list[int]
) -> None:
    log = Log(workflow, seed)
    state, expected = log.expected()
    together, single = Sliced(runtime), Sliced(runtime)
    assert together.take(log, sizes) == expected
    assert single.take(log, [1]) == expected
    for twin in (together, single):
        twin.left(state)
    assert together.events() == single.events()
