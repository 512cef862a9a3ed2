"""Workflows for the tests of the pages in Flower."""

from __future__ import annotations

import threading
from pathlib import Path

from graflow_celery import ParallelGroup, TaskExecutionContext, task, workflow

#: What a browser would run if a name was taken for HTML.
HOSTILE = "<img src=x onerror=alert(1)>"


@task
def begin() -> list[int]:
    return [1, 2, 3]


@task
def member(index: int) -> int:
    if index % 40 == 7:
        raise ValueError(f"odd {index} {HOSTILE}")
    return index


@task(max_retries=1)
def flaky() -> None:
    raise RuntimeError("no luck")


@task(id=HOSTILE)
def hostile() -> str:
    return HOSTILE


@task
def score(item: int) -> int:
    return item


@task
def mend(gate: str = "") -> str:
    if not Path(gate).exists():
        raise RuntimeError("the gate is closed")
    return "open"


@task
def slow() -> None:
    threading.Event().wait(60)


@task
def after(slow: None) -> None:
    return slow


@task(inject_context=True)
def review(context: TaskExecutionContext) -> str | None:
    if not context.request_approval("publish <b>it</b>?"):
        return "no"
    return context.request_selection("in which tone?", ["plain", "very loud"])


with workflow("census") as census:
    members = [member(task_id=f"m{i}", index=i) for i in range(80)]
    big = ParallelGroup(members, name="members").with_execution(policy="best_effort")
    few = ParallelGroup([flaky, hostile], name="few").with_execution(policy="best_effort")
    begin >> big >> few >> score.map(over="begin")

with workflow("mending") as mending:
    begin >> mend

with workflow("endless") as endless:
    slow >> after

with workflow("asking") as asking:
    begin >> review


@task
def link(index: int) -> int:
    return index


with workflow("long") as long:
    links = [link(task_id=f"n{i}", index=i) for i in range(2000)]
    last = begin
    for each in links:
        last = last >> each


@task
def passes(gate: str = "") -> None:
    while not Path(gate).exists():
        threading.Event().wait(0.05)


with workflow("gated") as gated:
    begin >> passes


@task
def finale() -> None: ...


with workflow("halfway") as halfway:
    begin >> score.map(over="begin") >> ParallelGroup([mend, hostile], name="both") >> finale


@task(inject_context=True)
def adds(context: TaskExecutionContext) -> None:
    context.next_task(link(task_id="added", index=1) >> link(task_id="added too", index=2))


with workflow("adding") as adding:
    begin >> adds
