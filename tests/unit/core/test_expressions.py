"""What `>>`, `<<`, `|`, chain and parallel register, and what is refused before anything runs."""

from __future__ import annotations

import re
from typing import Any

import pytest

from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.diagram import to_dot, to_mermaid, to_text
from graflow_celery.core.expr import ParallelGroup, SequentialTask, chain, parallel
from graflow_celery.core.lower import lower
from graflow_celery.core.policy import (
    AtLeastNGroupPolicy,
    BestEffortGroupPolicy,
    CriticalGroupPolicy,
    MemberOutcome,
    as_policy,
)
from graflow_celery.core.task import TaskWrapper, task
from graflow_celery.errors import (
    ConfigError,
    DuplicateTaskError,
    EmptyGroupError,
    GraphCompilationError,
    UnknownNodeError,
)


def new(name: str) -> TaskWrapper:
    def body() -> str:
        return name

    return task(name)(body)


def edges(definition: WorkflowDefinition) -> set[tuple[str, str]]:
    return set(definition.graph.edges)


def test_operators_outside_of_a_workflow_are_values_that_can_be_added_later() -> None:
    a, b, c = new("a"), new("b"), new("c")
    pipeline = a >> (b | c)
    wf = WorkflowDefinition("w")
    wf.add(pipeline)
    assert edges(wf) == {("a", "b|c")}
    assert set(wf.graph.nodes) == {"a", "b", "c", "b|c"}


def test_left_shift_is_right_shift_turned_round() -> None:
    a, b, c = new("a"), new("b"), new("c")
    with WorkflowDefinition("w") as wf:
        c << b << a
    assert edges(wf) == {("b", "c"), ("a", "b")}
    assert lower(wf.graph, "w").start == "a"


def test_chains_join_at_their_ends() -> None:
    a, b, c, d = (new(name) for name in "abcd")
    with WorkflowDefinition("w") as wf:
        both = (a >> b) >> (c >> d)
    assert isinstance(both, SequentialTask)
    assert [step.task_id for step in both] == ["a", "b", "c", "d"]
    assert edges(wf) == {("a", "b"), ("b", "c"), ("c", "d")}


def test_chain_and_parallel_mean_the_operators() -> None:
    a, b, c, d = (new(name) for name in "abcd")
    with WorkflowDefinition("w") as wf:
        chain(a, parallel(b, c), d)
    assert edges(wf) == {("a", "b|c"), ("b|c", "d")}


def test_a_group_extended_with_or_leaves_the_old_one_as_it_was() -> None:
    a, b, c = new("a"), new("b"), new("c")
    with WorkflowDefinition("w") as wf:
        two = a | b
        three = two | c
    assert two.member_ids == ("a", "b")
    assert three.member_ids == ("a", "b", "c")
    assert three is not two
    assert "a|b" not in wf.graph.nodes
    assert lower(wf.graph, "w").start == "a|b|c"


def test_extending_keeps_the_policy() -> None:
    a, b, c = new("a"), new("b"), new("c")
    with WorkflowDefinition("w"):
        group = (a | b).with_execution(policy="best_effort") | c
    assert group.policy == BestEffortGroupPolicy()


def test_a_named_group_is_nested_and_not_extended() -> None:
    a, b, c = new("a"), new("b"), new("c")
    with WorkflowDefinition("w") as wf:
        (a | b).set_group_name("inner") | c
    assert lower(wf.graph, "w")["inner|c"].exits == ("inner", "c")


def test_a_task_that_is_in_two_groups_is_refused() -> None:
    a, b, c = new("a"), new("b"), new("c")
    with WorkflowDefinition("w") as wf:
        (a | b).set_group_name("g") >> (a | c).set_group_name("h")
    with pytest.raises(GraphCompilationError, match="'a' is a member of two parallel groups, 'g' and 'h'"):
        lower(wf.graph, "w")


def test_one_id_for_two_tasks_is_refused_and_named() -> None:
    with pytest.raises(DuplicateTaskError, match=r"'twin' is used by two different tasks"), WorkflowDefinition("w"):
        new("twin") >> new("twin")


def test_an_empty_group_is_refused_and_named() -> None:
    with pytest.raises(EmptyGroupError, match="'nobody' has no members"):
        ParallelGroup([], name="nobody")


def test_an_edge_that_closes_a_cycle_is_told_from_the_others() -> None:
    a, b, c = new("a"), new("b"), new("c")
    with WorkflowDefinition("w") as wf:
        a >> b >> c >> b
    plan = lower(wf.graph, "w")
    assert [(spec.id, spec.successors, spec.loops, spec.needs) for spec in plan.nodes.values()] == [
        ("a", ("b",), (), 0),
        ("b", ("c",), (), 1),
        ("c", (), ("b",), 1),
    ]
    assert wf.graph.detect_cycles() in ([["b", "c", "b"]], [["c", "b", "c"]])


def test_a_cycle_inside_of_a_group_is_refused_with_what_to_write() -> None:
    a, b, c = new("a"), new("b"), new("c")
    with WorkflowDefinition("w") as wf:
        ((a >> b) | c).set_group_name("g")
        b >> a
    with pytest.raises(
        GraphCompilationError, match=r"'b' >> 'a' makes a member of parallel group 'g' more than a chain"
    ):
        lower(wf.graph, "w")


def test_an_unknown_start_node_is_refused_with_the_known_ones() -> None:
    with WorkflowDefinition("w") as wf:
        new("a") >> new("b")
    with pytest.raises(UnknownNodeError, match=r"no node 'x'. Its nodes are: a, b"):
        lower(wf.graph, "w", "x")


def test_several_starts_need_a_choice_and_the_rest_is_left_out() -> None:
    a, b, c = new("a"), new("b"), new("c")
    with WorkflowDefinition("w") as wf:
        a >> c
        b >> c
    with pytest.raises(GraphCompilationError, match=r"2 start nodes \(a, b\)"):
        lower(wf.graph, "w")
    plan = lower(wf.graph, "w", "a")
    assert set(plan.nodes) == {"a", "c"}
    assert plan["c"].needs == 1


def test_an_empty_workflow_is_refused() -> None:
    with pytest.raises(GraphCompilationError, match="has no tasks"):
        lower(WorkflowDefinition("w").graph, "w")


def test_an_edge_between_members_of_a_group_is_refused() -> None:
    a, b = new("a"), new("b")
    with WorkflowDefinition("w") as wf:
        (a | b).set_group_name("g")
        a >> b
    with pytest.raises(GraphCompilationError, match="side by side in parallel group 'g'"):
        lower(wf.graph, "w")


def test_bound_copies_are_nodes_of_their_own_and_their_template_is_none() -> None:
    with WorkflowDefinition("w") as wf:

        @task
        def fetch(url: str) -> str:
            return url

        fetch(task_id="one", url="1") | fetch(url="2")
    plan = lower(wf.graph, "w")
    assert set(plan.task_ids) == {"one", "fetch_1"}
    assert "fetch" not in plan.nodes


def test_binding_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(TypeError, match="no parameter 'uri'"):
        new("a")(uri="x")


def test_positional_arguments_are_refused_with_the_way_out() -> None:
    with pytest.raises(TypeError, match="bind parameters by keyword"):
        new("a")(1)


def test_a_call_without_arguments_is_a_plain_call() -> None:
    assert new("a")() == "a"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("queue", 5),
        ("priority", "high"),
        ("priority", 256),
        ("time_limit", "5"),
        ("soft_time_limit", 0),
        ("max_retries", "2"),
        ("max_retries", -1),
        ("retry_policy", "fast"),
        ("max_cycles", 0),
        ("on_worker_loss", "die"),
        ("max_losses", 1.5),
    ],
)
def test_an_option_that_cannot_be_is_refused_and_named_before_anything_runs(name: str, value: object) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(ConfigError, match=f"@task\\({name}={re.escape(repr(value))}\\): it has to be "):
        task(**options)


def test_an_operator_with_something_else_is_pythons_own_type_error() -> None:
    with pytest.raises(TypeError):
        new("a") >> 1  # type: ignore[operator]


def test_diagrams_show_every_node_and_edge() -> None:
    with WorkflowDefinition("w") as wf:
        new("a") >> (new("b") | new("c")).set_group_name("g") >> new("d")
    mermaid, dot, text = to_mermaid(wf.graph), to_dot(wf.graph, "w"), to_text(wf.graph)
    assert mermaid.startswith("flowchart LR")
    assert mermaid.count("-->") == 2
    assert dot.count("->") == 2
    assert '"g" -> "d"' in dot
    for drawn in (mermaid, dot, text):
        assert all(name in drawn for name in "abcdg")


def test_group_names_stay_short_and_differ() -> None:
    with WorkflowDefinition("w"):
        group = parallel(*(new(f"task_number_{index:03}") for index in range(300)))
    assert group.task_id == "task_number_000|...|task_number_299(300)"


def test_policies_judge_outcomes() -> None:
    mixed = [MemberOutcome("a", True), MemberOutcome("b", False, "ValueError: no"), MemberOutcome("c", True)]
    assert as_policy("strict").judge(mixed) == "1 of 3 members failed, and policy 'strict' allows none"
    assert as_policy("best_effort").judge(mixed) is None
    assert AtLeastNGroupPolicy(2).judge(mixed) is None
    assert AtLeastNGroupPolicy(3).judge(mixed) == "2 of 3 members succeeded, and policy 'at_least_n' needs 3"
    assert CriticalGroupPolicy(("a",)).judge(mixed) is None
    assert CriticalGroupPolicy(("b", "a")).judge(mixed) == "critical members failed: b"


@pytest.mark.parametrize("wrong", ["stric", 5, None])
def test_an_unknown_policy_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigError, match="policy"):
        as_policy(wrong)  # type: ignore[arg-type]
