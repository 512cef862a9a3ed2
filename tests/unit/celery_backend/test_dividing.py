"""How many members a message is for, from what is known of their code, of the workers and of the members."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from graflow_celery.celery_backend.dividing import Dividing
from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.expr import ParallelGroup
from graflow_celery.core.plan import Plan
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.ports import RunRef
from graflow_celery.redis_backend.client import Client, connect
from graflow_celery.redis_backend.durations import Durations
from graflow_celery.redis_backend.keys import Keys
from tests.unit.core.transcript import new, plan_of

RUN = RunRef("run", "graph")
NAMES = [f"m{number}" for number in range(40)]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with EmbeddedServer() as server:
        client = connect(server.url)
        yield client
        client.close()


@pytest.fixture
def durations(client: Client) -> Durations:
    return Durations(client, Keys(uuid.uuid4().hex[:8]))


def group(**options: object) -> Plan:
    with WorkflowDefinition("w") as wf:
        wf.add(ParallelGroup([new(name, **options) for name in NAMES], name="g"))
    return plan_of(wf)


def dividing(durations: Durations, batch: int | str = "auto", asked: list[int] | None = None) -> Dividing:
    def processes() -> int:
        (asked if asked is not None else []).append(1)
        return 2

    return Dividing(durations, lambda run, plan, node: f"kind-{node[-1]}", processes, batch, 3)


def known(durations: Durations, seconds: float, kinds: str = "0123456789") -> Durations:
    for kind in kinds:
        durations.took(f"kind-{kind}", seconds)
    return durations


def test_what_is_quick_shares_messages_and_what_is_long_does_not(durations: Durations) -> None:
    assert dividing(known(durations, 0.0001))(RUN, group(), NAMES)[0] > 5
    for _ in range(60):
        known(durations, 2.0)
    assert dividing(durations)(RUN, group(), NAMES) == [1] * len(NAMES)


def test_as_long_as_one_kind_is_unknown_nothing_is(durations: Durations) -> None:
    known(durations, 0.0001, "012345678")
    assert dividing(durations).expected(RUN, group(), NAMES) is None
    assert dividing(durations)(RUN, group(), NAMES)[:4] == [1, 1, 2, 2]


def test_a_number_that_was_set_is_kept_and_that_of_the_task_comes_first(durations: Durations) -> None:
    assert dividing(durations, 15)(RUN, group(), NAMES) == [15, 15, 10]
    assert dividing(durations, 15)(RUN, group(batch=20), NAMES) == [20, 20]
    assert dividing(known(durations, 100.0))(RUN, group(batch=20), NAMES) == [20, 20]


@pytest.mark.parametrize(
    "options",
    [{"time_limit": 5.0}, {"soft_time_limit": 5.0}, {"on_worker_loss": "fail"}, {"max_losses": 1}],
    ids=lambda options: next(iter(options)),
)
def test_members_whose_message_must_be_their_own_travel_alone(durations: Durations, options: dict[str, object]) -> None:
    plan = group(batch=20, **options)
    assert dividing(known(durations, 0.0001), 15)(RUN, plan, NAMES) == [1] * len(NAMES)
    assert dividing(durations).batch_of(plan, "m0") == 1


def test_a_groups_number_comes_after_the_tasks_and_before_the_setting(durations: Durations) -> None:
    with WorkflowDefinition("w") as wf:
        members = [new("a"), new("b", batch=7)]
        wf.add(ParallelGroup(members, name="g").with_execution(batch=9))
    plan = plan_of(wf)
    assert [dividing(durations, 5).batch_of(plan, node) for node in ("a", "b")] == [9, 7]


def test_members_of_which_a_few_run_at_a_time_travel_alone(durations: Durations) -> None:
    with WorkflowDefinition("w") as wf:
        wf.add(new("m", batch=9).map(over="numbers", max_parallel=3))
    assert dividing(durations, 5).batch_of(plan_of(wf), "m[0]") == 1


def test_one_member_needs_no_looking_up(durations: Durations) -> None:
    asked: list[int] = []
    assert dividing(durations, asked=asked)(RUN, group(), ["m0"]) == [1]
    assert not asked
