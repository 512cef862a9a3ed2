"""What an event costs does not depend on the size of the graph: counted in looks at the plan, not in seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from graflow_celery.core.events import BarrierReached, Event, NodeFailed, NodeSkipped, NodeSucceeded
from graflow_celery.core.lower import lower
from graflow_celery.core.plan import NodeSpec, Plan
from graflow_celery.core.scheduler import Scheduler
from tests.bench.events import SHAPES


class Counted(Mapping[str, NodeSpec]):
    """The nodes of a plan. ``looks``: how often one was asked for; each node that an iteration passes counts."""

    def __init__(self, nodes: Mapping[str, NodeSpec]) -> None:
        self._nodes = nodes
        self.looks = 0

    def __getitem__(self, key: str) -> NodeSpec:
        self.looks += 1
        return self._nodes[key]

    def __iter__(self) -> Iterator[str]:
        for node in self._nodes:
            self.looks += 1
            yield node

    def __len__(self) -> int:
        return len(self._nodes)


def looks(plan: Plan, event: Event) -> int:
    counted = Counted(plan.nodes)
    Scheduler().decide(replace(plan, nodes=counted, passes={}), event)
    return counted.looks


EVENTS: list[tuple[str, Event]] = [
    ("line", NodeSucceeded("n1", 1)),
    ("line", NodeFailed("n1", 1, "boom")),
    ("line", NodeSkipped("n1")),
    ("star", NodeSucceeded("n1", 1)),
    ("star", BarrierReached("g", None)),
    ("member", NodeSucceeded("n1", 1)),
    ("member", BarrierReached("g", "1 of 2")),
    ("diamond", NodeSucceeded("n1", 1)),
    ("mapped", NodeSucceeded("m[1]", 1)),
]


@pytest.mark.parametrize(("shape", "event"), EVENTS)
def test_an_event_looks_at_its_nodes_neighbours_only(shape: str, event: Event) -> None:
    small, large = (lower(SHAPES[shape](size).graph, shape) for size in (5, 500))
    assert looks(small, event) == looks(large, event) <= 20


def test_a_jump_counts_the_ways_of_its_pass_once() -> None:
    plan = lower(SHAPES["line"](500).graph, "line")
    counted = Counted(plan.nodes)
    plan = replace(plan, nodes=counted, passes={})
    again = f"@1~{plan.number('n0')}"
    Scheduler().decide(plan, NodeSucceeded("n0" + again, 1))
    first = counted.looks
    Scheduler().decide(plan, NodeSucceeded("n1" + again, 1))
    assert first >= 500 > 50 > counted.looks - first
