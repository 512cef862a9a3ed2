"""The diagram in docs/design.md draws what the code does: its arrows are found by driving a run's state."""

from __future__ import annotations

from collections.abc import Callable

from graflow_celery import ParallelGroup, task, workflow
from graflow_celery.core.events import (
    BarrierReached,
    CancelRequested,
    Event,
    FeedbackAnswered,
    FeedbackExpired,
    FeedbackRequested,
    NodeFailed,
    NodeFinished,
    NodeIterated,
    NodeLost,
    NodeReturned,
    NodeSkipped,
    NodeSucceeded,
    RunAborted,
    RunExpired,
    RunStarted,
    RunTerminated,
    StepsExceeded,
)
from graflow_celery.core.extend import extend
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.core.scheduler import Scheduler
from graflow_celery.core.state import ALLOWED, NodeState, RunState, RunStatus
from tests.e2e.markdown import ROOT, Page
from tests.e2e.state_diagram import NODE_MOVES, RUN_MOVES, START, Edge, draw, node_edges


@task(max_retries=3)
def first() -> None: ...


@task(max_retries=3)
def alone() -> None: ...


@task
def beside() -> None: ...


@task
def added() -> None: ...


def plan() -> Plan:
    """A task of each kind: one that is dispatched, and one that is the first of its group."""
    with workflow("states") as wf:
        first >> ParallelGroup([alone, beside], name="group", policy="best_effort")
    return wf.plan()


def driven(node: str) -> set[Edge]:
    """What becomes of a node's state by whatever the engine may tell of it, four things in a row."""
    edges: set[Edge] = set()
    with_added, key = extension(node)
    frontier = [RunState(outstanding=100)]
    for _ in range(4):
        pairs = [(before, after) for before in frontier for after in steps(with_added, key, before, node)]
        moved = [pair for pair in pairs if pair[0].nodes.get(node) != pair[1].nodes.get(node)]
        edges |= {(state_of(before, node), state_of(after, node)) for before, after in moved}
        frontier = [after for _, after in pairs]
    return {(source, target) for source, target in edges if target != START}


def extension(node: str) -> tuple[Plan, str]:
    """The plan with a task that a node adds."""
    base = plan()
    if base[node].is_group:
        return base, ""
    made = extend(Place.of(base, node), 1, [added], leaves=False)
    return base.extended(made.key, made.plan.nodes), made.key


def steps(known: Plan, key: str, before: RunState, node: str) -> list[RunState]:
    """The states that follow from each thing that the engine may tell of a node."""
    record = before.nodes.get(node)
    attempt = record.attempt if record else 1
    state = record.state if record else None
    events: list[Event] = []
    if state is None:  # whoever leads to it
        events += [NodeSkipped(node), RunStarted(), *([NodeSucceeded("first", 1)] if node != "first" else [])]
    if known[node].is_group:
        events += [BarrierReached(node, None), BarrierReached(node, "too few")] if state else []
    else:
        if state is not NodeState.WAITING:  # its code, or what comes before its code
            events += [NodeFailed(node, attempt, "r"), NodeFailed(node, attempt, "r", retryable=False)]
            events += [NodeReturned(node, attempt, "r")]
        if state is NodeState.RUNNING:  # an attempt has leave before it can do anything else
            events += [
                NodeSucceeded(node, attempt),
                NodeSucceeded(node, attempt, (), key),
                NodeIterated(node, attempt),
                FeedbackRequested(node, attempt, "q", 1.0),
                RunTerminated(node, attempt, "r"),
                NodeLost(node, attempt, 1, 3, "r", "w"),
                NodeLost(node, attempt, 2, 3, "r", "w"),
                NodeReturned(node, attempt, "r", "w"),
            ]
        if state is NodeState.WAITING:
            events += [FeedbackAnswered(node, attempt, "q"), FeedbackExpired(node, attempt, "q")]
            events += [NodeFinished(node, attempt, key), NodeFinished(node, attempt, key, "r")]
    followed: list[RunState] = []
    for event in events:
        after = before.copy()
        if not after.apply(Scheduler().decide(known, event)).stale:
            followed.append(after)
    begun = before.copy()
    if not known[node].is_group and begun.begin(node, attempt, "w") is not None:
        followed.append(begun)
    return followed


def state_of(run: RunState, node: str) -> str:
    record = run.nodes.get(node)
    return START if record is None else record.state.value


def test_the_arrows_between_a_nodes_states_are_those_of_the_code() -> None:
    edges = driven("first") | driven("alone") | driven("group")
    assert {(str(source), str(target)) for source, target in node_edges()} == edges


def test_what_has_ended_stays_as_it_is() -> None:
    assert [state for state, targets in ALLOWED.items() if not targets] == [
        NodeState.SUCCEEDED,
        NodeState.FAILED,
        NodeState.SKIPPED,
    ]
    assert set(ALLOWED) == set(NodeState)


def test_the_arrows_between_a_runs_states_are_those_of_the_code() -> None:
    endings: list[Event] = [
        NodeFailed("first", 1, "r", retryable=False),
        CancelRequested("enough"),
        RunAborted("graph lost"),
        RunExpired(1.0),
        StepsExceeded(1),
        RunTerminated("first", 1, "r"),
    ]
    edges: set[Edge] = {(START, RunStatus.RUNNING)}
    for ways in (run_that_goes_on, run_that_waits):
        for ending in endings:
            edges |= moves(ways(), [ending])
        edges |= moves(ways(), [NodeSucceeded("first", 1), BarrierReached("group", None)])
    edges |= moves(run_that_waits(), [FeedbackAnswered("alone", 2, "q")])
    asked = FeedbackRequested("alone", 1, "q", 1.0)
    edges |= moves(run_that_goes_on(), [NodeSucceeded("first", 1), asked, FeedbackExpired("alone", 2, "q")])
    assert {(str(source), str(target)) for source, target in RUN_MOVES} == edges
    assert {target for _, target in edges} == set(RunStatus)


def run_that_goes_on() -> RunState:
    run = RunState()
    run.apply(Scheduler().decide(plan(), RunStarted()))
    return run


def run_that_waits() -> RunState:
    """A member of the group waits for a person; a pass of `first` is still open."""
    run = run_that_goes_on()
    events: list[Event] = [FeedbackRequested("alone", 1, "q", 1.0), FeedbackExpired("alone", 2, "q")]
    for event in events:
        assert not run.apply(Scheduler().decide(plan(), event)).stale
    return run


def moves(run: RunState, events: list[Event]) -> set[Edge]:
    """How events move a run's status; once it has ended they are stale."""
    edges: set[Edge] = set()
    for event in events:
        before = run.status
        assert not run.apply(Scheduler().decide(plan(), event)).stale
        edges.add((before, run.status))
    if run.status.is_terminal:
        for later in [*events, CancelRequested("late")]:
            assert run.apply(Scheduler().decide(plan(), later)).stale
    return {(str(source), str(target)) for source, target in edges if source != target}


def test_the_diagram_is_the_one_that_the_tables_make() -> None:
    [block] = [block for block in Page(ROOT / "docs" / "design.md").blocks if block.kind == "mermaid"]
    assert block.text == draw(), "run: python -m tests.e2e.state_diagram"


def test_every_move_has_its_words_and_none_is_drawn_that_is_not_allowed() -> None:
    told: Callable[[set[Edge]], set[Edge]] = lambda edges: {(str(a), str(b)) for a, b in edges}  # noqa: E731
    assert told(set(NODE_MOVES)) == told(node_edges())
