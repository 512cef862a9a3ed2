"""Running one attempt of one node: leave from the store, arguments, the user's function, the outcome's event."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graflow_celery.core.events import NodeFailed, NodeLost, NodeSucceeded
from graflow_celery.core.plan import Plan
from graflow_celery.core.scheduler import lost_reason
from graflow_celery.core.state import STALE, Applied
from graflow_celery.core.task import TaskWrapper
from graflow_celery.engine.context import ExecutionContext, TaskExecutionContext, group_result
from graflow_celery.engine.runner import Engine
from graflow_celery.errors import (
    BlobMissingError,
    BlobRejectedError,
    CodeNotFoundError,
    ParameterError,
    SerializationError,
    WorkerLostError,
)
from graflow_celery.ports import Attempt, Channel, Outcome

_UNRETRYABLE = (SerializationError, ParameterError, CodeNotFoundError)
_NODE_ERRORS = (*_UNRETRYABLE, BlobMissingError, BlobRejectedError)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class NodeCode:
    """The function of a node and how its parameters are filled."""

    func: Callable[..., Any]
    inject_context: bool = False
    resolve_keyword_args: bool = True
    bound: Mapping[str, Any] = field(default_factory=dict)
    parameters: tuple[inspect.Parameter, ...] = ()

    @classmethod
    def of(cls, wrapper: TaskWrapper) -> NodeCode:
        return cls.build(wrapper.func, wrapper.inject_context, wrapper.resolve_keyword_args, wrapper.bound)

    @classmethod
    def build(
        cls, func: Callable[..., Any], inject_context: bool, resolve_keyword_args: bool, bound: Mapping[str, Any]
    ) -> NodeCode:
        listed = list(inspect.signature(func).parameters.values())[int(inject_context) :]
        parameters = tuple(parameter for parameter in listed if parameter.kind in _NAMED)
        return cls(func, inject_context, resolve_keyword_args, bound, parameters)

    def wanted(self) -> tuple[str, ...]:
        """The parameters whose values are to be looked up."""
        if not self.resolve_keyword_args:
            return ()
        return tuple(parameter.name for parameter in self.parameters if parameter.name not in self.bound)


def run_attempt(
    engine: Engine,
    channel: Channel,
    attempt: Attempt,
    load: Callable[[], NodeCode],
    *,
    max_losses: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Applied:
    """Runs an attempt and delivers what came of it; the answer is stale if it counts for nothing.

    Args:
        channel: the run's channel.
        load: brings the node's code; its errors are errors of the node.
        max_losses: how many processes a node may lose that does not say so itself.
        clock: measures the duration.
    """
    began = clock()

    def failed(error: Exception) -> Applied:
        reason = f"{type(error).__name__}: {error}"
        event = NodeFailed(attempt.node, attempt.number, reason, retryable=not isinstance(error, _UNRETRYABLE))
        outcome = Outcome(error=error, worker=attempt.worker, duration=clock() - began)
        return engine.deliver(attempt.run, attempt.plan, event, outcome)

    try:
        code = load()
        names = [name for name in code.wanted() if not _is_group(attempt.plan, name)]
        begun = engine.store.begin(attempt, names)
        if begun is None:
            return STALE
        if begun.losses:
            applied = _report_loss(engine, attempt, begun.losses, max_losses)
            if applied.ended_node or applied.stale:
                return applied
        arguments = _arguments(engine, attempt, code, begun.values)
    except _NODE_ERRORS as error:
        return failed(error)
    context = ExecutionContext(attempt.run, attempt.plan, engine.store, channel)
    injected = (TaskExecutionContext(context, attempt.node, attempt.number),) if code.inject_context else ()
    try:
        value = code.func(*injected, **arguments)
    except Exception as error:  # noqa: BLE001 - boundary: user code may raise anything
        return failed(error)
    outcome = Outcome(value=value, worker=attempt.worker, duration=clock() - began)
    try:
        return engine.deliver(attempt.run, attempt.plan, NodeSucceeded(attempt.node, attempt.number), outcome)
    except SerializationError as error:
        return failed(error)


def _report_loss(engine: Engine, attempt: Attempt, losses: int, max_losses: int) -> Applied:
    error = WorkerLostError(attempt.node, f"{lost_reason(losses)}. Give it more memory, or allow more: max_losses=...")
    event = NodeLost(attempt.node, attempt.number, losses, max_losses)
    return engine.deliver(attempt.run, attempt.plan, event, Outcome(error=error, worker=attempt.worker))


def _is_group(plan: Plan, name: str) -> bool:
    return name in plan.nodes and plan[name].is_group


def _arguments(engine: Engine, attempt: Attempt, code: NodeCode, found: Mapping[str, Any]) -> dict[str, Any]:
    """Results before channel values, bound values over both, defaults last."""
    arguments = {**found, **code.bound}
    for name in code.wanted():
        if _is_group(attempt.plan, name):
            arguments[name] = group_result(engine.store, attempt.run, attempt.plan, name)
    missing = [
        parameter.name
        for parameter in code.parameters
        if parameter.name not in arguments and parameter.default is inspect.Parameter.empty
    ]
    if missing:
        raise ParameterError(
            attempt.node,
            f"no value for parameter {', '.join(repr(name) for name in missing)}. A parameter takes the result of the "
            f"task of its name, or the channel value of that key, or what was bound: {attempt.node}({missing[0]}=...).",
        )
    return arguments
