"""However work is divided among messages, and whether or not events are written, runs come to the same."""

from __future__ import annotations

from typing import Any

import pytest

from graflow_celery import ParallelGroup, Run, RunStatus, chain, task, workflow
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.testing import wait_until

pytestmark = pytest.mark.workers
WAYS: list[dict[str, Any]] = [
    {},
    {"batch": 1},
    {"batch": 7},
    {"fuse": "off"},
    {"batch": 1, "fuse": "off"},
    {"events": "off"},
]


@task
def numbers() -> list[int]:
    return list(range(40))


@task(max_retries=2, inject_context=True)
def third_time(context: Any, item: int) -> int:
    """Each seventh item fails twice."""
    tries = context.get_channel().atomic_add(f"tries {item}")
    if item % 7 == 0 and tries < 3:
        raise ValueError(f"try {tries}")
    return item


@task
def step(number: int) -> int:
    return number


@task
def fails() -> None:
    raise KeyError("as the test wants it")


@task
def total(mapped: list[int]) -> int:
    return sum(mapped)


@pytest.mark.parametrize(
    "way", WAYS, ids=lambda way: " ".join(f"{key}={value}" for key, value in way.items()) or "auto"
)
def test_a_run_comes_to_the_same(way: dict[str, Any]) -> None:
    with workflow("everything") as wf:
        members = [step(task_id=f"m{number}", number=number) for number in range(30)]
        chains = [chain(step(task_id=f"a{one}", number=one), step(task_id=f"b{one}", number=one)) for one in range(9)]
        group = ParallelGroup([*members, *chains, fails], name="group").with_execution(policy="best_effort")
        numbers >> third_time.map(name="mapped") >> group >> total
    with EmbeddedCluster(workers=1, concurrency=2, **way) as cluster:
        for _ in range(3):  # unknown code first, then code of which it is known what it takes
            run = wf.submit(settings=cluster.settings)
            assert run.wait(timeout=60) is RunStatus.SUCCEEDED
            assert run.result() == sum(range(40))
            assert set(run.result("group")) == {f"m{number}" for number in range(30)} | {f"b{one}" for one in range(9)}
            told = [event["event"] for event in run.events()]
            if way.get("events") == "off":
                assert told == []
            else:
                assert told.count("node_succeeded") == 1 + 40 + 30 + 18 + 1
                assert told.count("node_retried") == 2 * 6
                assert told.count("node_failed") == 1


def test_a_task_a_group_and_the_setting_say_how_many_travel_together() -> None:
    @task(batch=1)
    def alone() -> None: ...

    @task
    def together() -> None: ...

    with workflow("sizes") as wf:
        apart = ParallelGroup([alone(task_id=f"x{number}") for number in range(6)], name="apart")
        fours = ParallelGroup([together(task_id=f"y{number}") for number in range(8)], name="fours", batch=4)
        apart >> fours
    with EmbeddedCluster(workers=1, concurrency=1, batch=3) as cluster:
        run = wf.submit(settings=cluster.settings)
        assert run.wait(timeout=60) is RunStatus.SUCCEEDED
        received = Run.get(run.id, cluster.settings)._runtime.liveness
        queue = cluster.settings.queue
        wait_until(
            lambda: received.received([queue])[queue] == 6 + 2,
            timeout=10,
            description="the worker's beat to tell of eight messages",
        )
