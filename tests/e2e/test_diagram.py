"""The diagram in docs/design.md draws what the code does: its arrows are found by driving a run's state."""

from __future__ import annotations

import copy
import re

from graflow_celery import ParallelGroup, task, workflow
from graflow_celery.core.events import (
    BarrierReached,
    CancelRequested,
    Event,
    NodeFailed,
    NodeLost,
    NodeSkipped,
    NodeSucceeded,
    RunAborted,
    RunStarted,
)
from graflow_celery.core.plan import Plan
from graflow_celery.core.scheduler import Scheduler
from graflow_celery.core.state import ALLOWED, NodeState, RunState, RunStatus
from tests.e2e.markdown import ROOT, Page

Edges = set[tuple[str, str]]


@task(max_retries=3)
def alone() -> None: ...


@task
def beside() -> None: ...


def one_task() -> Plan:
    with workflow("task") as wf:
        wf.add(alone)
    return wf.plan()


def one_group() -> Plan:
    with workflow("group") as wf:
        ParallelGroup([alone, beside], name="group")
    return wf.plan()


def drawn(part: str) -> Edges:
    """The arrows in one part of the diagram, between the names of its states; "" is the start."""
    blocks = [block for block in Page(ROOT / "docs" / "design.md").blocks if block.kind == "mermaid"]
    assert len(blocks) == 1, "one diagram"
    found = re.search(rf'^    state "[^"]+" as {part} \{{\n(.*?)^    \}}$', blocks[0].text, re.MULTILINE | re.DOTALL)
    assert found is not None
    names = {short: name for name, short in re.findall(r'state "([^"]+)" as (\w+)\n', found[1])} | {"[*]": ""}
    return {(names[source], names[target]) for source, target in re.findall(r"(\S+) --> (\S+)", found[1])}


def driven(plan: Plan, node: str) -> Edges:
    """What becomes of a node's state by whatever may happen to it, three things in a row."""
    edges: Edges = set()
    frontier = [RunState(outstanding=100)]
    for _ in range(3):
        pairs = [(before, after) for before in frontier for after in steps(plan, before, node)]
        edges |= {(state_of(before, node), state_of(after, node)) for before, after in pairs}
        frontier = [after for _, after in pairs]
    return edges


def steps(plan: Plan, before: RunState, node: str) -> list[RunState]:
    """The states that follow from each thing that the engine may tell of a node."""
    record = before.nodes.get(node)
    attempt = record.attempt if record else 1
    events: list[Event] = [NodeSkipped(node)]
    if plan[node].is_group:
        events += [BarrierReached(node, None), BarrierReached(node, "too few")]
    else:
        events += [NodeFailed(node, attempt, "r"), NodeFailed(node, attempt, "r", retryable=False)]
    if record is not None and record.state is NodeState.RUNNING:  # an attempt has leave before it can succeed
        events += [NodeSucceeded(node, attempt), NodeLost(node, attempt, 1, 3), NodeLost(node, attempt, 4, 3)]
    followed: list[RunState] = []
    for event in events:
        after = copy.deepcopy(before)
        if not after.apply(Scheduler().decide(plan, event)).stale:
            followed.append(after)
    begun = copy.deepcopy(before)
    if not plan[node].is_group and begun.begin(node, attempt, redelivered=True) is not None:
        followed.append(begun)
    return followed


def state_of(run: RunState, node: str) -> str:
    record = run.nodes.get(node)
    return "waiting" if record is None else record.state.value


def test_the_arrows_between_a_nodes_states_are_those_of_the_code() -> None:
    edges = driven(one_task(), "alone") | driven(one_group(), "group")
    assert drawn("node") == edges | {("", "waiting")}


def test_the_code_moves_a_node_only_where_its_table_allows() -> None:
    for before, after in driven(one_task(), "alone") | driven(one_group(), "group"):
        assert before == "waiting" or NodeState(after) in ALLOWED[NodeState(before)]


def test_the_arrows_between_a_runs_states_are_those_of_the_code() -> None:
    plan = one_task()
    edges: Edges = {("", RunStatus.RUNNING)}
    endings: list[Event] = [
        NodeSucceeded("alone", 1),
        NodeFailed("alone", 1, "r", retryable=False),
        CancelRequested("enough"),
        RunAborted("graph lost"),
    ]
    for first in endings:
        run = RunState()
        run.apply(Scheduler().decide(plan, RunStarted()))
        assert run.begin("alone", 1) == 0
        before = run.status
        run.apply(Scheduler().decide(plan, first))
        edges.add((before, run.status))
        for second in endings:
            assert run.apply(Scheduler().decide(plan, second)).stale, "a run that ended stays as it is"
    assert drawn("run") == {(str(source), str(target)) for source, target in edges}
    assert {target for _, target in edges} == set(RunStatus)
