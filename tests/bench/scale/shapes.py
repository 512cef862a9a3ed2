"""The graphs that are measured, by how many nodes they have."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

from graflow_celery import ParallelGroup, WorkflowContext, chain, task, workflow
from graflow_celery.core.expr import Executable

#: Members of each group of a mixed graph; every other node of it is in a chain.
SIDE_BY_SIDE = 100


@task
def noop() -> int:
    return 1


def _new(name: str) -> Executable:
    return noop.bind(task_id=name)


def group(size: int) -> WorkflowContext:
    """One group, and a node after it."""
    with workflow("scale-group") as wf:
        ParallelGroup([_new(f"m{index}") for index in range(size)], name="members") >> _new("last")
    return wf


def line(size: int) -> WorkflowContext:
    """One chain, made at once."""
    with workflow("scale-chain") as wf:
        chain(*(_new(f"n{index}") for index in range(size)))
    return wf


def mixed(size: int) -> WorkflowContext:
    """Groups of a hundred with a chain of a hundred after each."""
    steps: list[Executable] = []
    with workflow("scale-mixed") as wf:
        for number in range(max(1, size // (2 * SIDE_BY_SIDE))):
            members = [_new(f"g{number}m{index}") for index in range(SIDE_BY_SIDE)]
            steps.append(ParallelGroup(members, name=f"g{number}"))
            steps += [_new(f"c{number}n{index}") for index in range(SIDE_BY_SIDE)]
        chain(*steps)
    return wf


def fan(size: int) -> WorkflowContext:
    """Nodes between a start and a join, by edges alone."""
    with workflow("scale-fan") as wf:
        first, last = _new("first"), _new("last")
        for index in range(size):
            first >> _new(f"n{index}") >> last
    return wf


def piped(size: int) -> WorkflowContext:
    """A group that grows by ``|``, as a loop writes it."""
    with workflow("scale-piped") as wf:
        functools.reduce(operator.or_, [_new(f"m{index}") for index in range(size)])
    return wf


def shifted(size: int) -> WorkflowContext:
    """A chain that grows by ``>>``, as a loop writes it."""
    with workflow("scale-shifted") as wf:
        functools.reduce(operator.rshift, [_new(f"n{index}") for index in range(size)])
    return wf


def nested(size: int) -> WorkflowContext:
    """Groups in groups, each with a task beside: half as deep as it has nodes."""
    with workflow("scale-nested") as wf:
        inner: Executable = ParallelGroup([_new("n0"), _new("m0")], name="g0")
        for index in range(1, size // 2):
            inner = ParallelGroup([inner, _new(f"n{index}")], name=f"g{index}")
    return wf


Shape = Callable[[int], WorkflowContext]
SHAPES: dict[str, Shape] = {
    "group": group,
    "chain": line,
    "mixed": mixed,
    "fan": fan,
    "piped": piped,
    "shifted": shifted,
    "nested": nested,
}
#: Those of which it is the writing alone that grows.
WRITTEN = ("piped", "shifted", "nested")
