"""Our side's workflows. Each has a mark, so that no run before it can have uploaded anything of it."""

from __future__ import annotations

import importlib
import os
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from graflow_celery import ParallelGroup, TaskExecutionContext, WorkflowContext, chain, task, workflow
from graflow_celery.core.expr import Executable

KINDS = ("random bytes", "text", "array")
SIZE = 10_000_000


def value(kind: str, seed: int) -> Any:
    """Some 10 MB: bytes that nothing compresses, a text that repeats itself, or a NumPy array of floats."""
    if kind == "random bytes":
        return random.Random(seed).randbytes(SIZE)
    if kind == "text":
        return text(seed)
    numpy = importlib.import_module("numpy")
    return numpy.random.default_rng(seed).standard_normal(SIZE // 8)


def text(seed: int) -> str:
    """As `peer_flows` makes it."""
    lines = [f"line {number} of a log that says little\n" for number in range(500)]
    return "".join(random.Random(seed).choices(lines, k=300_000))[:SIZE]


@task
def noop() -> int:
    return 1


@task
def echo(data: int) -> int:
    return data


def groups(mark: str, count: int, members: int) -> WorkflowContext:
    """``count`` groups in a row on one graph."""
    with workflow(f"groups {mark}") as wf:
        steps: list[Executable] = [
            ParallelGroup([noop(task_id=f"g{group}m{index}") for index in range(members)], name=f"g{group}")
            for group in range(count)
        ]
        chain(*steps)
    return wf


def by_value(mark: str, count: int, changed: int = 0) -> WorkflowContext:
    """Small functions, all different, that workers cannot import; the middle one has another value if ``changed``."""

    def made(number: int, more: int) -> Callable[[], str]:
        return lambda: f"{mark} {number + more}"

    functions = [made(number, changed if number == count // 2 else 0) for number in range(count)]
    return _side_by_side(f"by value {mark}", functions)


def by_reference(mark: str, folder: Path, count: int, changed: int = 0) -> WorkflowContext:
    """Functions of a module that is written into ``folder`` first; the middle one's code differs if ``changed``."""
    name = f"content_{mark}"
    functions = "".join(
        f"def f{number}():\n    return {number + (changed if number == count // 2 else 0)}\n\n"
        for number in range(count)
    )
    (folder / f"{name}.py").write_text(f'MARK = "{mark}"\n\n{functions}', encoding="utf-8")
    sys.path.insert(0, str(folder))
    module = importlib.import_module(name)
    return _side_by_side(f"by reference {mark}", [getattr(module, f"f{number}") for number in range(count)])


def _side_by_side(name: str, functions: Sequence[Callable[[], object]]) -> WorkflowContext:
    with workflow(name) as wf:
        ParallelGroup([task(id=f"t{number}")(function) for number, function in enumerate(functions)], name="members")
    return wf


@task(inject_context=True)
def step(context: TaskExecutionContext, left: int) -> int:
    """Adds the next one while some are left."""
    if left:
        context.next_task(step(task_id=f"added{left}", left=left - 1))
    return left


def adding(mark: str, count: int, base: int) -> WorkflowContext:
    """A graph of ``base`` nodes, of which the last adds ``count`` tasks at run time, one by one."""
    with workflow(f"adding {mark}") as wf:
        first = step(task_id="first", left=count)
        if base > 1:
            ParallelGroup([noop(task_id=f"b{index}") for index in range(base - 1)], name="base") >> first
    return wf


@task
def produce(kind: str, seed: int) -> Any:
    return value(kind, seed)


@task
def read(produce: Any, number: int) -> tuple[int, int, int]:
    """Which process had it."""
    return os.getpid(), len(produce), number


def sharing(kind: str, seed: int, members: int) -> WorkflowContext:
    """A value that one task makes and ``members`` read."""
    with workflow("sharing") as wf:
        readers = [read(task_id=f"r{index}", number=index) for index in range(members)]
        produce(task_id="produce", kind=kind, seed=seed) >> ParallelGroup(readers, name="readers")
    return wf


def long_names(mark: str, length: int) -> WorkflowContext:
    """A group of two whose ids, and its own, have ``length`` characters."""
    with workflow(f"long names {mark}") as wf:
        members = [noop(task_id=f"{index}{'n' * (length - 1)}") for index in range(2)]
        ParallelGroup(members, name="g" * length)
    return wf


def nested(mark: str, depth: int) -> WorkflowContext:
    """Groups within groups."""
    with workflow(f"nested {mark}") as wf:
        inner: Executable = noop(task_id="innermost")
        for level in range(depth):
            inner = ParallelGroup([inner, noop(task_id=f"beside{level}")], name=f"level{level}")
    return wf


@task
def items() -> list[int]:
    return list(range(100))


def mapped(mark: str) -> WorkflowContext:
    with workflow(f"mapped {mark}") as wf:
        items >> echo.map(name="echoes")
    return wf
