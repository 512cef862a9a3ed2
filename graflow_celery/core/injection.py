"""Which of a function's parameters are filled with the context, an LLM client and an LLM agent."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from graflow_celery.errors import GraphCompilationError

CLIENT = "llm_client"
AGENT = "llm_agent"

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True)
class Injection:
    """The names of the parameters to fill, None where nothing is injected. ``rest`` are all other parameters."""

    llm_client: str | None
    llm_agent: str | None
    rest: tuple[inspect.Parameter, ...]


def injection(
    func: Callable[..., Any], *, task_id: str, context: bool = False, client: bool = False, agent: bool = False
) -> Injection:
    """Reads a function's signature.

    The context is the first parameter. A client goes to the parameter ``llm_client``, an agent to ``llm_agent``; where
    there is none of that name, they go to the parameters that follow the context, the client first.

    Raises:
        GraphCompilationError: the function has no parameter left for one of them.
    """
    if not (context or client or agent) and _takes_nothing(func):
        return _NOTHING
    parameters = list(inspect.signature(func).parameters.values())[int(context) :]
    by_name = {parameter.name: parameter for parameter in parameters if parameter.kind in _NAMED}
    open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    wanted = [name for name, asked in ((CLIENT, client), (AGENT, agent)) if asked]
    chosen = {name: name for name in wanted if name in by_name}
    free = iter([name for name in by_name if name not in chosen.values()])
    for name in wanted:
        if name in chosen:
            continue
        target = name if open_ended else next(free, None)
        if target is None:
            raise GraphCompilationError(
                f"Task '{task_id}': its function has no parameter for what inject_{name} brings. Add one: {name}."
            )
        chosen[name] = target
    rest = tuple(parameter for name, parameter in by_name.items() if name not in chosen.values())
    return Injection(chosen.get(CLIENT), chosen.get(AGENT), rest)


_NOTHING = Injection(None, None, ())


def _takes_nothing(func: Callable[..., Any]) -> bool:
    """Whether it is a plain function without parameters: `inspect.signature` takes longer than to run one."""
    if not isinstance(func, FunctionType) or func.__dict__:  # what is wrapped, or has a signature of its own
        return False
    code = func.__code__
    takes_more = code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS)
    return not (code.co_argcount or code.co_kwonlyargcount or takes_more)
