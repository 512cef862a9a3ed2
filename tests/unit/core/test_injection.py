from __future__ import annotations

from typing import Any

import pytest

from graflow_celery.core.injection import Injection, injection
from graflow_celery.errors import GraphCompilationError


def names(found: Injection) -> tuple[str | None, str | None, list[str]]:
    return found.llm_client, found.llm_agent, [parameter.name for parameter in found.rest]


def test_graflows_names_win_wherever_they_stand() -> None:
    def func(ctx: Any, data: Any, llm_agent: Any, *, llm_client: Any) -> None: ...

    found = injection(func, task_id="t", context=True, client=True, agent=True)
    assert names(found) == ("llm_client", "llm_agent", ["data"])


def test_other_names_are_taken_in_order_after_the_context() -> None:
    def func(ctx: Any, llm: Any, agent: Any, data: Any) -> None: ...

    assert names(injection(func, task_id="t", context=True, client=True, agent=True)) == ("llm", "agent", ["data"])
    assert names(injection(func, task_id="t", context=True, agent=True)) == (None, "llm", ["agent", "data"])


def test_one_by_its_name_and_the_other_by_its_place() -> None:
    def func(data: Any, llm_client: Any) -> None: ...

    assert names(injection(func, task_id="t", client=True, agent=True)) == ("llm_client", "data", [])


def test_nothing_injected_leaves_all_that_can_be_passed_by_name() -> None:
    def func(first: Any, /, a: Any, *more: Any, b: int = 1, **others: Any) -> None: ...

    assert names(injection(func, task_id="t")) == (None, None, ["a", "b"])


def test_keywords_of_any_name_take_graflows_names() -> None:
    def func(data: Any, **others: Any) -> None: ...

    assert names(injection(func, task_id="t", client=True)) == ("llm_client", None, ["data"])


def test_a_function_without_a_parameter_for_it_is_named() -> None:
    def func(ctx: Any) -> None: ...

    with pytest.raises(GraphCompilationError, match=r"Task 't'.*inject_llm_agent brings\. Add"):
        injection(func, task_id="t", context=True, agent=True)
