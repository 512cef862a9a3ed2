"""What the operators cost grows with what is written, not with its square; and depth costs no stack."""

from __future__ import annotations

import functools
import operator
import pickle
from collections.abc import Callable, Iterator

import pytest

from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.diagram import to_dot, to_mermaid, to_text
from graflow_celery.core.expr import Executable, ParallelGroup, chain
from graflow_celery.core.graph import TaskGraph
from graflow_celery.core.lower import lower
from graflow_celery.core.parts import Parts
from graflow_celery.core.task import Task

DEEP = 3_000


class Counted(Task):
    """A task that counts how often anything looks at it."""

    looks = 0

    @property
    def task_id(self) -> str:
        Counted.looks += 1
        return super().task_id

    def _registering(self, graph: TaskGraph) -> Iterator[Executable]:
        Counted.looks += 1
        return super()._registering(graph)


def looks(write: Callable[[list[Executable]], object], size: int) -> int:
    """How often tasks are looked at while an expression of so many is written."""
    with WorkflowDefinition("large"):
        tasks: list[Executable] = [Counted(f"a-task-with-a-long-name-{index}") for index in range(size)]
        Counted.looks = 0
        write(tasks)
    return Counted.looks


@pytest.mark.parametrize("sign", [operator.or_, operator.rshift, operator.lshift])
@pytest.mark.parametrize("attached", [True, False])
def test_an_operator_in_a_loop_looks_at_each_operand_a_few_times(
    sign: Callable[[Executable, Executable], Executable], attached: bool
) -> None:
    def write(tasks: list[Executable]) -> object:
        return functools.reduce(sign, tasks) if attached else functools.reduce(sign, tasks[1:], tasks[0])

    few, many = looks(write, 200), looks(write, 800)
    assert many < 5 * few, f"{few} looks for 200 tasks, {many} for 800"


def test_a_group_that_grew_in_a_loop_is_what_it_would_be_at_once() -> None:
    with WorkflowDefinition("grown") as grown:
        group = functools.reduce(operator.or_, [Task(f"task-number-{index}") for index in range(60)])
    with WorkflowDefinition("at once") as at_once:
        ParallelGroup([Task(f"task-number-{index}") for index in range(60)])
    assert list(grown.graph.nodes) == list(at_once.graph.nodes)
    assert lower(grown.graph, "w") == lower(at_once.graph, "w")
    assert [task.task_id for task in group.tasks] == [f"task-number-{index}" for index in range(60)]  # type: ignore[attr-defined]


def test_two_groups_that_grow_from_one_do_not_share_what_comes_after() -> None:
    a, b, c, d = (Task(name) for name in "abcd")
    common = a | b
    left, right = common | c, common | d
    assert [[task.task_id for task in group.tasks] for group in (common, left, right)] == [
        ["a", "b"],
        ["a", "b", "c"],
        ["a", "b", "d"],
    ]
    first, second = (a >> b) >> c, (a >> b) >> d
    assert (first.member_ids, [*map(str, first)], [*map(str, second)]) == (
        (),
        [*map(str, (a, b, c))],
        [*map(str, (a, b, d))],
    )


def test_parts_can_be_put_after_themselves() -> None:
    parts = Parts("ab")
    assert tuple(parts.plus(parts)) == ("a", "b", "a", "b")
    assert (tuple(parts), parts[-1], parts[0:1], len(parts)) == (("a", "b"), "b", ("a",), 2)
    with pytest.raises(IndexError):
        parts[2]


def test_parts_are_the_same_after_a_pickle_however_they_were_made() -> None:
    grown = Parts("a").plus("b")
    grown.plus("c")
    assert pickle.dumps(grown) == pickle.dumps(Parts("ab"))
    assert tuple(pickle.loads(pickle.dumps(grown))) == ("a", "b")


def deep() -> Executable:
    inner: Executable = Task("n0", register_to_context=False)
    for index in range(1, DEEP):
        beside = Task(f"n{index}", register_to_context=False)
        inner = ParallelGroup([inner, beside], name=f"g{index}", register_to_context=False)
    return inner


def test_groups_may_stand_thousands_deep_in_one_another() -> None:
    definition = WorkflowDefinition("deep")
    definition.add(deep())
    plan = lower(definition.graph, "deep")
    assert len(plan.nodes) == 2 * DEEP - 1
    for draw in (to_mermaid, to_dot, to_text):
        assert draw(definition.graph).count("n1234") >= 1


def test_the_drawing_of_a_deep_graph_grows_with_its_nodes_alone() -> None:
    definition = WorkflowDefinition("deep")
    definition.add(deep())
    assert len(to_text(definition.graph)) < 2 * DEEP * 150


def test_a_chain_of_ten_thousand_is_lowered() -> None:
    with WorkflowDefinition("long") as definition:
        chain(*(Task(f"n{index}", register_to_context=False) for index in range(10_000)))
    assert len(lower(definition.graph, "long").nodes) == 10_000
    assert "n9999" in to_mermaid(definition.graph)
