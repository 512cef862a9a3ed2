"""Tasks: functions that became nodes."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, overload

from graflow_celery.core.definition import current_definition
from graflow_celery.core.expr import Executable
from graflow_celery.core.graph import TaskGraph
from graflow_celery.core.mapping import MappedTask
from graflow_celery.core.plan import TaskOptions
from graflow_celery.core.retry import RetryPolicy
from graflow_celery.errors import ConfigError, GraphCompilationError

Function = Callable[..., Any]
#: How a function gets to the workers: by its name, whole, or by its name where that leads to it and else whole.
Ship = Literal["auto", "reference", "value"]
SHIPS = ("auto", "reference", "value")

#: What each option of a task has to be, where it is given.
_OPTIONS: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("queue", "the name of a queue", lambda value: isinstance(value, str) and value != ""),
    ("priority", "a whole number from 0 to 255", lambda value: isinstance(value, int) and 0 <= value <= 255),
    ("time_limit", "a number of seconds over 0", lambda value: isinstance(value, int | float) and value > 0),
    ("soft_time_limit", "a number of seconds over 0", lambda value: isinstance(value, int | float) and value > 0),
    ("max_retries", "a whole number, 0 or more", lambda value: isinstance(value, int) and value >= 0),
    ("retry", "a RetryPolicy", lambda value: isinstance(value, RetryPolicy)),
    ("max_cycles", "a whole number, 1 or more", lambda value: isinstance(value, int) and value >= 1),
    ("on_worker_loss", "'retry' or 'fail'", lambda value: value in ("retry", "fail")),
    ("max_losses", "a whole number, 1 or more", lambda value: isinstance(value, int) and value >= 1),
    ("batch", "a whole number from 1 to 1000", lambda value: isinstance(value, int) and 1 <= value <= 1000),
)


class Task(Executable):
    """A task without a function: a named point that other tasks are wired to."""

    def __init__(self, task_id: str, register_to_context: bool = True) -> None:
        if not isinstance(task_id, str) or not task_id:
            raise GraphCompilationError(f"A task id is a non-empty string, not {task_id!r}.")
        self._task_id = task_id
        self.options = TaskOptions()
        if register_to_context:
            self._attach()

    @property
    def task_id(self) -> str:
        return self._task_id

    def _registering(self, graph: TaskGraph) -> Iterator[Executable]:
        graph.add_node(self)
        return iter(())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._task_id})"


class TaskWrapper(Task):
    """A function as a task. Made by :func:`task`; called with keyword arguments it makes a bound copy of itself.

    Attributes:
        func: the user's function.
        bound: values for parameters, given when the copy was made.
        inject_context: the first parameter receives the :class:`TaskExecutionContext`.
        resolve_keyword_args: parameters receive results and channel values of their name.
        inject_llm_client, inject_llm_agent: parameters ``llm_client`` and ``llm_agent`` receive the run's client, or
            the agent of that name.
        ship: how the function gets to the workers; as the workflow says if None.
    """

    def __init__(
        self,
        task_id: str,
        func: Function,
        *,
        inject_context: bool = False,
        resolve_keyword_args: bool = True,
        inject_llm_client: bool = False,
        inject_llm_agent: str | None = None,
        options: TaskOptions | None = None,
        bound: Mapping[str, Any] | None = None,
        register_to_context: bool = True,
        ship: Ship | None = None,
    ) -> None:
        super().__init__(task_id, register_to_context=False)
        self.func = func
        self.ship = ship
        self.inject_context = inject_context
        self.resolve_keyword_args = resolve_keyword_args
        self.inject_llm_client = inject_llm_client
        self.inject_llm_agent = inject_llm_agent
        self.options = options or TaskOptions()
        self.bound = dict(bound or {})
        self._copies = itertools.count(1)
        functools.update_wrapper(self, func)
        if register_to_context:
            self._attach()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Without arguments: calls the function, as a plain call. With keyword arguments: a bound copy, a new node.

        ``task_id`` names the copy; without it the name is made from the function's.

        Raises:
            TypeError: positional arguments, or a keyword that is no parameter of the function.
        """
        if args:
            raise TypeError(
                f"Task '{self.task_id}': bind parameters by keyword, {self.task_id}(name=value), "
                f"or call the plain function: {self.task_id}.func(...)."
            )
        if not kwargs:
            return self.func()
        return self.bind(**kwargs)

    def bind(self, *, task_id: str | None = None, **bound: Any) -> TaskWrapper:
        """A copy with some parameters bound: another node of the same function."""
        self._check_names(bound)
        definition = current_definition()
        if definition is not None and definition.graph.nodes.get(self.task_id) is self:
            definition.graph.mark_template(self.task_id)
        return TaskWrapper(
            task_id or f"{self.task_id}_{next(self._copies)}",
            self.func,
            inject_context=self.inject_context,
            resolve_keyword_args=self.resolve_keyword_args,
            inject_llm_client=self.inject_llm_client,
            inject_llm_agent=self.inject_llm_agent,
            options=self.options,
            bound={**self.bound, **bound},
            ship=self.ship,
        )

    def map(
        self, over: str | Executable | None = None, *, name: str | None = None, max_parallel: int | None = None
    ) -> MappedTask:
        """One member for each item of the result of what comes before, or of ``over``. See :class:`MappedTask`."""
        return MappedTask(self, over, name=name, max_parallel=max_parallel)

    @property
    def parameters(self) -> tuple[inspect.Parameter, ...]:
        """The function's parameters that can be passed by name, without the injected one."""
        listed = list(inspect.signature(self.func).parameters.values())
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        return tuple(parameter for parameter in listed[int(self.inject_context) :] if parameter.kind in named)

    def _check_names(self, bound: Mapping[str, Any]) -> None:
        signature = inspect.signature(self.func).parameters.values()
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in signature):
            return
        known = {parameter.name for parameter in self.parameters}
        for name in bound:
            if name not in known:
                names = ", ".join(sorted(known)) or "none"
                raise TypeError(f"Task '{self.task_id}': its function has no parameter '{name}'; it has: {names}.")

    def __graflow_fingerprint__(self) -> object:
        """What the task is, for functions that refer to it: its code, what was bound, and how it is called."""
        injected = (self.inject_context, self.inject_llm_client, self.inject_llm_agent)
        return (self.func, self.bound, self.options, injected, self.resolve_keyword_args, self.ship)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_copies"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state, _copies=itertools.count(1))


@overload
def task(id_or_func: Function, /) -> TaskWrapper: ...


@overload
def task(
    id_or_func: str | None = None,
    /,
    *,
    id: str | None = None,
    inject_context: bool = False,
    inject_llm_client: bool = False,
    inject_llm_agent: str | None = None,
    handler: str | None = None,
    resolve_keyword_args: bool = True,
    max_cycles: int | None = None,
    max_retries: int | None = None,
    retry_policy: RetryPolicy | None = None,
    queue: str | None = None,
    priority: int | None = None,
    time_limit: float | None = None,
    soft_time_limit: float | None = None,
    on_worker_loss: Literal["retry", "fail"] = "retry",
    max_losses: int | None = None,
    batch: int | None = None,
    ship: Ship | None = None,
) -> Callable[[Function], TaskWrapper]: ...


def task(
    id_or_func: Function | str | None = None,
    /,
    *,
    id: str | None = None,
    inject_context: bool = False,
    inject_llm_client: bool = False,
    inject_llm_agent: str | None = None,
    handler: str | None = None,
    resolve_keyword_args: bool = True,
    max_cycles: int | None = None,
    max_retries: int | None = None,
    retry_policy: RetryPolicy | None = None,
    queue: str | None = None,
    priority: int | None = None,
    time_limit: float | None = None,
    soft_time_limit: float | None = None,
    on_worker_loss: Literal["retry", "fail"] = "retry",
    max_losses: int | None = None,
    batch: int | None = None,
    ship: Ship | None = None,
) -> TaskWrapper | Callable[[Function], TaskWrapper]:
    """Makes a task of a function: ``@task``, ``@task("id")`` or ``@task(id=..., ...)``.

    Args:
        id_or_func: the function, or the task's id.
        id: the task's id; the function's name if neither is given.
        inject_context: pass the :class:`TaskExecutionContext` as the first argument.
        inject_llm_client, inject_llm_agent: pass the run's LLM client as ``llm_client``, the agent of this name as
            ``llm_agent``.
        handler: graflow's name for where a task runs; only its ``"direct"`` means something here.
        resolve_keyword_args: fill parameters from results and the channel by their names.
        max_cycles: how often the task may run in one run; 10 for ``next_iteration`` if not given.
        max_retries: how often a failed attempt is followed by another one, at once.
        retry_policy: the same with waits between them; it wins over ``max_retries``.
        queue, priority, time_limit, soft_time_limit: what they mean in Celery; the limits are seconds.
        on_worker_loss: what to do when the worker dies: ``"retry"`` elsewhere or ``"fail"``.
        max_losses: how many workers the task may lose before it is given up; the setting's value by default.
        batch: how many members of a group like this one travel in one message, 1 for none together; by default as the
            group or the setting says: by how long they take.
        ship: how the function gets to the workers: ``"reference"``, by its name; ``"value"``, whole, with what its
            module defines; ``"auto"``, by its name where that leads to it, else whole. As the workflow says by default.

    Raises:
        ConfigError: an option has a value that it cannot have.
    """
    if handler not in (None, "direct"):
        raise ConfigError(f"@task(handler={handler!r}): only 'direct' exists here; Docker and other handlers do not.")
    options = TaskOptions(
        queue=queue,
        priority=priority,
        time_limit=time_limit,
        soft_time_limit=soft_time_limit,
        max_retries=max_retries or 0,
        retry=retry_policy,
        max_cycles=max_cycles,
        on_worker_loss=on_worker_loss,
        max_losses=max_losses,
        batch=batch,
    )
    _check_options(options)
    if ship is not None:
        check_ship(ship, "@task")

    def wrap(func: Function) -> TaskWrapper:
        if not callable(func):
            raise TypeError(f"@task needs a function and got {type(func).__name__}.")
        chosen = id_or_func if isinstance(id_or_func, str) else id
        name = str(chosen or getattr(func, "__name__", type(func).__name__))
        return TaskWrapper(
            name,
            func,
            inject_context=inject_context,
            resolve_keyword_args=resolve_keyword_args,
            inject_llm_client=inject_llm_client,
            inject_llm_agent=inject_llm_agent,
            options=options,
            ship=ship,
        )

    return wrap(id_or_func) if callable(id_or_func) else wrap


def _check_options(options: TaskOptions) -> None:
    for name, wanted, fits in _OPTIONS:
        value = getattr(options, name)
        if value is not None and not fits(value):
            shown = "retry_policy" if name == "retry" else name
            raise ConfigError(f"@task({shown}={value!r}): it has to be {wanted}.")


def check_ship(ship: str, where: str) -> None:
    """Raises ConfigError for a value of ``ship`` that there is none of; ``where`` says whose it is: ``"@task"``."""
    if ship not in SHIPS:
        raise ConfigError(f"{where}(ship={ship!r}): it has to be 'auto', 'reference' or 'value'.")
