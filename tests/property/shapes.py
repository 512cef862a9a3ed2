"""Random workflows and what must come of them: a generator, and a naive model that knows no counters and no fences."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.expr import Executable, ParallelGroup, SequentialTask
from graflow_celery.core.lower import lower
from graflow_celery.core.plan import Plan
from graflow_celery.core.task import task

#: A shape is a task ("t", id, succeeds), a chain ("c", shapes) or a group ("g", id, policy, shapes).
Shape = tuple[object, ...]


@dataclass
class Workflow:
    """A DAG of shapes: ``edges[i]`` are the shapes that come after shape ``i``."""

    shapes: list[Shape]
    edges: dict[int, list[int]]


def _shape(draw: st.DrawFn, names: list[str], depth: int, may_fail: bool) -> Shape:
    kind = draw(st.sampled_from("ttcg" if depth else "t"))
    if kind == "t":
        names.append(f"n{len(names)}")
        return ("t", names[-1], not may_fail or draw(st.integers(0, 3)) > 0)
    if kind == "c":
        return ("c", [_shape(draw, names, depth - 1, may_fail) for _ in range(draw(st.integers(1, 3)))])
    names.append(f"g{len(names)}")
    policy = draw(st.sampled_from(["strict", "best_effort"]))
    return ("g", names[-1], policy, [_shape(draw, names, depth - 1, True) for _ in range(draw(st.integers(1, 4)))])


@st.composite
def workflows(draw: st.DrawFn) -> Workflow:
    names: list[str] = []
    count = draw(st.integers(1, 6))
    may_fail = draw(st.booleans())
    shapes = [("t", "start", True), *(_shape(draw, names, 2, may_fail) for _ in range(count))]
    edges: dict[int, list[int]] = {index: [] for index in range(len(shapes))}
    for target in range(1, len(shapes)):
        for source in draw(st.sets(st.integers(0, target - 1), min_size=1, max_size=3)):
            edges[source].append(target)
    return Workflow(shapes, edges)


def build(workflow: Workflow) -> Plan:
    """The plan of a workflow, by way of the DSL."""
    definition = WorkflowDefinition("random")

    def expression(shape: Shape) -> Executable:
        if shape[0] == "t":
            return task(str(shape[1]))(_nothing)
        if shape[0] == "c":
            return SequentialTask([expression(inner) for inner in shape[1]])  # type: ignore[attr-defined]
        members = [expression(inner) for inner in shape[3]]  # type: ignore[attr-defined]
        return ParallelGroup(members, name=str(shape[1]), policy=str(shape[2]))

    built = [expression(shape) for shape in workflow.shapes]
    with definition:
        for expression_ in built:
            definition.add(expression_)
        for source, targets in workflow.edges.items():
            for target in targets:
                built[source] >> built[target]
    return lower(definition.graph, "random")


@dataclass
class Expected:
    """What a run must come to, whatever the order of its events."""

    ran: set[str] = field(default_factory=set)
    succeeds: dict[str, bool] = field(default_factory=dict)
    fails: bool = False


def model(workflow: Workflow) -> Expected:
    """Walks the shapes in order. ``ran`` is complete only if the run does not fail: a failure ends it early."""
    expected = Expected()

    def note(shape: Shape) -> None:
        if shape[0] == "t":
            expected.succeeds[str(shape[1])] = bool(shape[2])
        else:
            for inner in shape[-1]:  # type: ignore[attr-defined]
                note(inner)

    def walk(shape: Shape) -> bool:
        if shape[0] == "t":
            expected.ran.add(str(shape[1]))
            return bool(shape[2])
        if shape[0] == "c":
            return all(walk(inner) for inner in shape[1])  # type: ignore[attr-defined]
        outcomes = [walk(inner) for inner in shape[3]]  # type: ignore[attr-defined]
        return all(outcomes) or shape[2] == "best_effort"

    for shape in workflow.shapes:
        note(shape)
    for shape in workflow.shapes:
        if not walk(shape):
            expected.fails = True
    return expected


def _nothing() -> None: ...
