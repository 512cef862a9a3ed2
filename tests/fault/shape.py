"""A workflow with one of everything, and the audit of a run that went through fire."""

from __future__ import annotations

import sys
from collections import Counter

from graflow_celery import ParallelGroup, Run, RunStatus, task, workflow
from graflow_celery.runs import client_runtime
from graflow_celery.settings import Settings
from graflow_celery.workflows import WorkflowContext

ITEMS = [1, 2, 3]
RESULT = {"a": 6, "b": 60, "d": 600, "e": -6, "double": [2, 4, 6]}
NODES = ["first", "a", "b", "c", "d", "e", *(f"double[{index}]" for index in range(3)), "last"]
GROUPS = ["outer", "inner", "double"]


@task
def first() -> list[int]:
    return ITEMS


@task
def a(first: list[int]) -> int:
    return sum(first)


@task
def b(first: list[int]) -> int:
    return 10 * sum(first)


@task
def c(first: list[int]) -> int:
    return 100 * sum(first)


@task
def d(c: int) -> int:
    return c


@task
def e(first: list[int]) -> int:
    return -sum(first)


@task
def double(item: int) -> int:
    return 2 * item


@task
def last(a: int, b: int, d: int, e: int, double: list[int]) -> dict[str, int | list[int]]:
    return {"a": a, "b": b, "d": d, "e": e, "double": double}


def shape() -> WorkflowContext:
    """A task, a group with a group and a chain in it, a mapped task, a task."""
    with workflow("shape") as wf:
        inner = ParallelGroup([c >> d, e], name="inner")
        first >> ParallelGroup([a, b, inner], name="outer") >> double.map(over=first) >> last
    return wf


def audit(run: Run, settings: Settings) -> None:
    """Everything of a run of the shape happened once, and nothing of it is left to do or to stay for ever."""
    assert run.status is RunStatus.SUCCEEDED, run.reason
    assert run.result() == RESULT
    ends = Counter((event["event"], event.get("node", "")) for event in run.events())
    assert {end: count for end, count in ends.items() if end[0].endswith("_succeeded")} == {
        **{("node_succeeded", node): 1 for node in NODES},
        **{("group_succeeded", group): 1 for group in GROUPS},
        ("run_succeeded", ""): 1,
    }
    client, keys = client_runtime(settings).client, client_runtime(settings).keys.run(run.id)
    assert not client.exists(keys.outbox, keys.watch)
    lives = {key.decode(): client.ttl(key) for key in client.scan_iter(f"*{run.id}*")}
    assert lives
    assert [key for key, ttl in lives.items() if ttl < 0] == []


if __name__ == "__main__":
    shape().submit(run_id=sys.argv[1])
