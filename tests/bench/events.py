"""`python -m tests.bench.events`: what one event costs the Scheduler and the state, by the size of the graph.

Each line is the median over the events of one run, in microseconds for `decide` and `apply` together, without begin and
without the store's journey to Redis. The cost must not grow with the graph: that is the rule of `core/scheduler.py`.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.table import Table

from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.events import BarrierReached, Event, MapExpanded, NodeSucceeded, RunStarted
from graflow_celery.core.expr import ParallelGroup, chain
from graflow_celery.core.extend import extend
from graflow_celery.core.lower import lower
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.core.scheduler import Scheduler
from graflow_celery.core.state import RunState
from graflow_celery.core.task import TaskWrapper, task

SIZES = (10, 1_000, 100_000)
#: So many events are measured, spread over the run.
SAMPLES = 2_000

Events = Iterator[Event]


def new(name: str) -> TaskWrapper:
    def body(item: object = None) -> None: ...

    return task(name)(body)


def line(size: int) -> WorkflowDefinition:
    with WorkflowDefinition("line") as wf:
        chain(*(new(f"n{index}") for index in range(size)))
    return wf


def star(size: int) -> WorkflowDefinition:
    with WorkflowDefinition("star") as wf:
        new("a") >> ParallelGroup([new(f"n{index}") for index in range(size)], name="g") >> new("z")
    return wf


def member_chain(size: int) -> WorkflowDefinition:
    with WorkflowDefinition("member") as wf:
        ParallelGroup([chain(*(new(f"n{index}") for index in range(size))), new("beside")], name="g")
    return wf


def diamond(size: int) -> WorkflowDefinition:
    """`size` nodes side by side between a start and a join, without a group."""
    with WorkflowDefinition("diamond") as wf:
        first, last = new("a"), new("z")
        for index in range(size):
            first >> new(f"n{index}") >> last
    return wf


def mapped(size: int) -> WorkflowDefinition:
    with WorkflowDefinition("mapped") as wf:
        new("a") >> new("m").map(max_parallel=8)
    return wf


def events_of(name: str, size: int) -> Events:
    yield RunStarted()
    if name in ("star", "diamond", "mapped"):
        yield NodeSucceeded("a", 1)
    if name == "mapped":
        yield MapExpanded("m", size)
    yield from (NodeSucceeded(f"m[{index}]" if name == "mapped" else f"n{index}", 1) for index in range(size))
    if name == "star":
        yield BarrierReached("g", None)


SHAPES: dict[str, Callable[[int], WorkflowDefinition]] = {
    "line": line,
    "star": star,
    "member": member_chain,
    "diamond": diamond,
    "mapped": mapped,
}


def measure(plan: Plan, events: Events, size: int) -> float:
    """Microseconds of one event, the median; those that open or complete everything are among thousands of others."""
    scheduler, state, every, found = Scheduler(), RunState(), max(1, size // SAMPLES), []
    for number, event in enumerate(events):
        began = time.perf_counter()
        assert not state.apply(scheduler.decide(plan, event)).stale, event
        if number % every == 0:
            found.append(time.perf_counter() - began)
    return statistics.median(found) * 1e6


def jumps(plan: Plan, count: int) -> float:
    """A jump back to the first node, again and again."""

    def events() -> Events:
        yield RunStarted()
        yield NodeSucceeded("n0", 1, ("n0",))
        yield from (NodeSucceeded(f"n0@{number}~{plan.number('n0')}", 1, ("n0",)) for number in range(1, count))

    return measure(plan, events(), 1)


def added(plan: Plan, count: int) -> float:
    """One task is added, again and again, by whoever was added last: lowering it, and the event."""
    found = []
    key, known = "n0", plan
    state, scheduler = RunState(), Scheduler()
    state.apply(scheduler.decide(plan, RunStarted()))
    for number in range(count):
        task_ = new(f"x{number}")
        began = time.perf_counter()
        extension = extend(Place.of(known, key), 1, [task_], leaves=False)
        here = known.extended(extension.key, extension.plan.nodes)
        assert not state.apply(scheduler.decide(here, NodeSucceeded(key, 1, (), extension.key))).stale
        found.append(time.perf_counter() - began)
        known = plan.extended(extension.key, extension.plan.nodes)  # what a worker knows that runs the added task
        key = Place.of(known, extension.key).inside(f"x{number}").key
    return statistics.median(found) * 1e6


def main() -> int:
    console = Console(width=120 if not sys.stdout.isatty() else None)
    table = Table(title="microseconds an event, the median: decide + apply; the last line: seconds to build and lower")
    for heading in ("events of", *(f"{size:,} nodes" for size in SIZES)):
        table.add_column(heading, justify="left" if heading == "events of" else "right")
    built: dict[tuple[str, int], Plan] = {}
    seconds: dict[tuple[str, int], float] = {}
    for name, shape in SHAPES.items():
        for size in SIZES:
            began = time.perf_counter()
            definition = shape(size)
            built[name, size] = lower(definition.graph, name)
            seconds[name, size] = time.perf_counter() - began
    for name in SHAPES:
        costs = [measure(built[name, size], events_of(name, size), size) for size in SIZES]
        table.add_row(name, *(f"{cost:.1f}" for cost in costs))
    table.add_row("jumps to one node", *(f"{jumps(built['line', size], 500):.1f}" for size in SIZES))
    table.add_row("adding a task", *(f"{added(built['line', size], 300):.1f}" for size in SIZES))
    for name in SHAPES:
        table.add_row(f"build + lower: {name}, s", *(f"{seconds[name, size]:.3f}" for size in SIZES))
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
