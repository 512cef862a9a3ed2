"""Running one attempt of one node: leave from the store, arguments, the user's function, the outcome's event."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from graflow_celery.core.activation import item_of, node_of
from graflow_celery.core.events import (
    Event,
    FeedbackRequested,
    NodeFailed,
    NodeReentered,
    NodeSucceeded,
    StepsExceeded,
)
from graflow_celery.core.extend import extend
from graflow_celery.core.injection import injection
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.core.quick import quick
from graflow_celery.core.state import STALE, Applied
from graflow_celery.core.task import TaskWrapper
from graflow_celery.engine.awaiting import Steps, advance, settled
from graflow_celery.engine.context import ExecutionContext
from graflow_celery.engine.feedback import Parked
from graflow_celery.engine.groups import group_result
from graflow_celery.engine.navigator import GraphNavigator
from graflow_celery.engine.runner import Engine
from graflow_celery.engine.task_context import TaskExecutionContext
from graflow_celery.engine.untraced import UNTRACED_SPAN
from graflow_celery.errors import (
    AsyncGeneratorError,
    BlobMissingError,
    BlobRejectedError,
    CodeMismatchError,
    CodeNotFoundError,
    CycleLimitExceededError,
    GraflowWorkflowCanceledError,
    GraphCompilationError,
    LLMNotRegisteredError,
    ParameterError,
    SerializationError,
    TaskCancelledError,
)
from graflow_celery.ports import NOTHING, Attempt, Begun, Clock, CoroutineRunner, Outcome, Random, Span

_UNRETRYABLE = (
    BlobMissingError,
    SerializationError,
    BlobRejectedError,
    ParameterError,
    CodeNotFoundError,
    CodeMismatchError,
    CycleLimitExceededError,
    GraphCompilationError,
    LLMNotRegisteredError,
    AsyncGeneratorError,
    TaskCancelledError,
)
_NODE_ERRORS = _UNRETRYABLE[:-3]
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class NodeCode:
    """The function of a node and how its parameters are filled.

    ``parameters`` are those that are filled by name; ``client`` and ``agent`` name the parameters that receive the LLM
    client, and the agent called ``agent_name``.
    """

    func: Callable[..., Any]
    inject_context: bool = False
    resolve_keyword_args: bool = True
    bound: Mapping[str, Any] = field(default_factory=dict)
    parameters: tuple[inspect.Parameter, ...] = ()
    client: str | None = None
    agent: str | None = None
    agent_name: str | None = None

    @property
    def sees_run(self) -> bool:
        """Whether the function can tell what else there is of the run: it is handed the context, or what has it."""
        return self.inject_context or self.client is not None or self.agent is not None

    @classmethod
    def of(cls, wrapper: TaskWrapper) -> NodeCode:
        return cls.build(
            wrapper.task_id,
            wrapper.func,
            wrapper.inject_context,
            wrapper.resolve_keyword_args,
            wrapper.bound,
            wrapper.inject_llm_client,
            wrapper.inject_llm_agent,
        )

    @classmethod
    def build(
        cls,
        task_id: str,
        func: Callable[..., Any],
        inject_context: bool,
        resolve_keyword_args: bool,
        bound: Mapping[str, Any],
        client: bool = False,
        agent: str | None = None,
    ) -> NodeCode:
        found = injection(func, task_id=task_id, context=inject_context, client=client, agent=agent is not None)
        return cls(
            func, inject_context, resolve_keyword_args, bound, found.rest, found.llm_client, found.llm_agent, agent
        )

    def wanted(self) -> tuple[str, ...]:
        """The parameters whose values are to be looked up."""
        if not self.resolve_keyword_args:
            return ()
        return tuple(parameter.name for parameter in self.parameters if parameter.name not in self.bound)

    @property
    def input_name(self) -> str | None:
        """The parameter that receives an item, or what an iteration handed on: the first that was not bound."""
        return next((parameter.name for parameter in self.parameters if parameter.name not in self.bound), None)


@quick
@dataclass(frozen=True, slots=True)
class Host:
    """What the place that runs an attempt lends to it.

    Attributes:
        context: the run's context, whose channel and managers the task sees.
        load: brings the node's code; its errors are errors of the node.
        run_coroutine: runs the coroutine of an ``async def`` task to its end.
        clock: measures the duration, in seconds. ``random``: draws a number in [0, 1).
    """

    context: ExecutionContext
    load: Callable[[], NodeCode]
    run_coroutine: CoroutineRunner
    clock: Clock
    random: Random


def run_attempt(engine: Engine, attempt: Attempt, host: Host) -> Applied:
    """Runs an attempt in this thread and delivers what came of it; the answer is stale if it counts for nothing."""
    return finished(attempt_steps(engine, attempt, host), host.run_coroutine)


def attempt_steps(engine: Engine, attempt: Attempt, host: Host) -> Steps:
    """What :func:`run_attempt` does, paused where a coroutine is to be run: see `awaiting`."""
    return AttemptRun(engine, attempt, host).steps()


def finished(steps: Steps, run_coroutine: CoroutineRunner) -> Applied:
    """Runs an attempt to its end in this thread."""
    step = advance(steps)
    while isinstance(step, Coroutine):
        step = advance(steps, *run_coroutine(step))
    return step


@quick
@dataclass(frozen=True, slots=True)
class End:
    """What an attempt came to: the event, what belongs to it, and what is called with what its commit answered."""

    event: Event
    outcome: Outcome
    plan: Plan
    committed: Callable[[Applied], None]


class AttemptRun:
    """One run of an attempt.

    Args:
        deliver: takes its end to the store, at once by default. Raises SerializationError: the outcome cannot be kept.
        place: where it stands, if that is known.
    """

    def __init__(
        self,
        engine: Engine,
        attempt: Attempt,
        host: Host,
        deliver: Callable[[End], Applied] | None = None,
        place: Place | None = None,
    ) -> None:
        self.engine = engine
        self.attempt = attempt
        self.host = host
        self.began = host.clock()
        self.place = place or Place.of(attempt.plan, attempt.node)
        self.retries: int | None = None
        self.span: Span = UNTRACED_SPAN
        self._deliver = deliver or self._at_once

    def steps(self) -> Steps:
        """Asks for leave and runs the attempt, if it is given."""
        try:
            code = self.host.load()
            begun = self.engine.store.begin(self.attempt, self.place.scopes, names(code, self.attempt.plan))
        except _NODE_ERRORS as error:
            return self.failed(error)
        return STALE if begun is None else (yield from self.run(code, begun))

    def run(self, code: NodeCode, begun: Begun) -> Steps:
        """Runs the attempt, for which leave was given."""
        attempt = self.attempt
        try:
            refused = self.refused(begun)
            if refused is not None:
                return refused
            self.retries = begun.leave.retries
            self.span = self.engine.tracer.begin(attempt)
            self.began = self.host.clock()
            arguments = self.arguments(code, begun)
        except _NODE_ERRORS as error:
            return self.failed(error)
        task: TaskExecutionContext | None = None
        if code.sees_run:
            navigator = GraphNavigator(attempt.plan, attempt.node, attempt.number, begun.leave.cycle)
            task = TaskExecutionContext(self.host.context, navigator, begun.leave.retries, self.host.clock)
        try:
            value = yield from settled(self.span.call(partial(call, code, task, arguments)), self.place.spec.id)
        except Parked as parked:
            asked = FeedbackRequested(attempt.node, attempt.number, parked.record.id, parked.timeout)
            return self.deliver(asked, replace(self.outcome(), feedback=parked.record))
        except Exception as error:  # noqa: BLE001 - boundary: user code may raise anything
            return self.failed(error)
        try:
            if task is None:
                return self.deliver(NodeSucceeded(attempt.node, attempt.number), self.outcome(value=value))
            return self.ended(value, task)
        except _NODE_ERRORS as error:
            return self.failed(error)

    def refused(self, begun: Begun) -> Applied | None:
        """What speaks against running it all the same: too many cycles or steps."""
        attempt, leave = self.attempt, begun.leave
        if leave.max_steps is not None:
            self.engine.end(attempt.run, StepsExceeded(leave.max_steps))
            return STALE
        limit = self.place.spec.options.max_cycles
        if not leave.cycle or limit is None:
            return None
        error = CycleLimitExceededError(self.place.spec.id, leave.cycle, limit)
        again = NodeReentered(attempt.node, attempt.number, leave.cycle)
        applied = self._at_once(self.end(again, Outcome(error=error, worker=attempt.worker)))
        return applied if applied.ended_node or applied.stale else None

    def ended(self, value: Any, task: TaskExecutionContext) -> Applied:
        """The code came to its end. Raises SerializationError: what it brought cannot be stored."""
        attempt, plan, navigator = self.attempt, self.attempt.plan, task.navigator
        added: str | None = None
        if navigator.adds:
            extension = extend(self.place, attempt.number, navigator.added, navigator.leaves)
            plan = self.engine.graphs.add(attempt.run, plan, extension)
            added = extension.key
        outcome = self.outcome(value=value, input=navigator.iteration)
        if navigator.cancelled is not None:
            outcome = self.outcome(error=GraflowWorkflowCanceledError(navigator.cancelled, self.place.spec.id))
        return self.deliver(navigator.event(added), outcome, plan, task.after_commit)

    def failed(self, error: Exception) -> Applied:
        attempt = self.attempt
        reason = f"{type(error).__name__}: {error}"
        retryable = not isinstance(error, _UNRETRYABLE)
        if retryable and self.retries is None:  # its code could not be loaded: only the store knows how often by now
            begun = self.engine.store.begin(attempt, self.place.scopes, ())
            if begun is None:
                return STALE
            self.retries = begun.leave.retries
            self.span = self.engine.tracer.begin(attempt)
        event = NodeFailed(attempt.node, attempt.number, reason, retryable, self.retries or 0, self.host.random())
        return self.deliver(event, self.outcome(error=error))

    def deliver(
        self,
        event: Event,
        outcome: Outcome,
        plan: Plan | None = None,
        after_commit: Callable[[Applied], None] | None = None,
    ) -> Applied:
        return self._deliver(self.end(event, outcome, plan, after_commit))

    def end(
        self,
        event: Event,
        outcome: Outcome,
        plan: Plan | None = None,
        after_commit: Callable[[Applied], None] | None = None,
    ) -> End:
        def committed(applied: Applied) -> None:
            self.span.end(event, outcome, applied)
            if after_commit is not None:
                after_commit(applied)

        return End(event, outcome, plan or self.attempt.plan, committed)

    def _at_once(self, end: End) -> Applied:
        return self.engine.deliver(self.attempt.run, end.plan, end.event, end.outcome, end.committed)

    def outcome(self, **fields: Any) -> Outcome:
        return Outcome(worker=self.attempt.worker, duration=self.host.clock() - self.began, **fields)

    def arguments(self, code: NodeCode, begun: Begun) -> dict[str, Any]:
        """Defaults last; over them channel values, results, bound values, what is injected, the item or iteration."""
        attempt = self.attempt
        arguments = dict(begun.values)
        for name in code.wanted():
            if _is_group(attempt.plan, name):
                arguments[name] = group_result(self.engine.store, attempt.run, attempt.plan, name)
        arguments |= code.bound
        if begun.input is NOTHING and not code.parameters:
            return arguments
        is_item = item_of(node_of(attempt.node)) is not None and self.place.spec.id not in attempt.plan.nodes
        if begun.input is not NOTHING and (is_item or begun.input is not None):
            if code.input_name is None:
                raise ParameterError(self.place.spec.id, "it has no parameter left for what it is handed on")
            arguments[code.input_name] = begun.input
        missing = [
            parameter.name
            for parameter in code.parameters
            if parameter.name not in arguments and parameter.default is inspect.Parameter.empty
        ]
        if missing:
            node = self.place.spec.id
            raise ParameterError(
                node,
                f"no value for parameter {', '.join(repr(name) for name in missing)}. A parameter takes the result of "
                f"the task of its name, or the channel value of that key, or what was bound: {node}({missing[0]}=...).",
            )
        return arguments


def call(code: NodeCode, task: TaskExecutionContext | None, arguments: Mapping[str, Any]) -> Any:
    """Calls the function. ``task`` is there where the code sees the run."""
    if task is None:
        return code.func(**arguments)
    injected = (task,) if code.inject_context else ()
    llm: dict[str, Any] = {}
    if code.client is not None:
        llm[code.client] = task.llm_client
    if code.agent is not None and code.agent_name is not None:
        llm[code.agent] = task.get_llm_agent(code.agent_name)
    return code.func(*injected, **{**arguments, **llm})


def names(code: NodeCode, plan: Plan) -> list[str]:
    """What is to be looked up for its parameters, besides the results of groups."""
    return [name for name in code.wanted() if not _is_group(plan, name)]


def _is_group(plan: Plan, name: str) -> bool:
    return name in plan.nodes and plan[name].is_group
