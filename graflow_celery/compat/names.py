"""What programs for graflow import by name and what only they need."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NotRequired, TypedDict

from graflow_celery.core.definition import WorkflowDefinition, current_definition
from graflow_celery.engine.llm import LLMAgent
from graflow_celery.errors import GraflowRuntimeError

LLMAgentFactory = Callable[[Any], LLMAgent]
LLMAgentProvider = LLMAgent | LLMAgentFactory


class CoordinationBackend(StrEnum):
    """Where graflow runs a group. Taken by ``with_execution`` and without effect: the run decides where it runs."""

    REDIS = "redis"
    THREADING = "threading"
    DIRECT = "direct"


class AgentStep(TypedDict):
    """One step of an agent, as graflow's agents report it."""

    type: str
    is_final: bool
    is_partial: bool
    content: NotRequired[list[str]]


class AgentResult(TypedDict):
    """What graflow's agents return. Ours may return anything."""

    output: Any
    steps: list[AgentStep]
    metadata: dict[str, Any]


def get_current_workflow_context(create_if_not_exist: bool = False) -> WorkflowDefinition | None:
    """The workflow whose ``with`` block is being executed, if any.

    Raises:
        GraflowRuntimeError: there is none and one was to be made, which only ``with workflow(...)`` does here.
    """
    return require_workflow_context() if create_if_not_exist else current_definition()


def require_workflow_context() -> WorkflowDefinition:
    """The workflow whose ``with`` block is being executed.

    Raises:
        GraflowRuntimeError: there is none.
    """
    current = current_definition()
    if current is None:
        raise GraflowRuntimeError(
            "No workflow is being written here. Write it inside: with workflow('name') as wf: ..."
        )
    return current
