"""LLM clients and agents by name. Their factories are registered and travel; what these make stays where it was made.

No LLM library is imported here. A client or an agent is made when a task first asks for it, once in a process: on a
Celery worker the second task of that process finds the agent that the first one made.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self, runtime_checkable

from graflow_celery.engine.llm_client import LLMClient
from graflow_celery.engine.observing import OBSERVER, WatchedAgent
from graflow_celery.errors import GraflowRuntimeError, LLMNotRegisteredError

Kind = Literal["client", "agent"]
Factory = Callable[..., Any]
#: ``{"client": {name: factory}, "agent": {name: factory}}``
Factories = Mapping[Kind, Mapping[str, Factory]]

DEFAULT_CLIENT = "default"


@runtime_checkable
class LLMAgent(Protocol):
    """An agent: any object that can be told to run."""

    def run(self, *args: Any, **kwargs: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Ready:
    """A finished object in the place of a factory. It travels as it is, so it has to be picklable to travel."""

    value: Any

    def __call__(self) -> Any:
        return self.value


class LLMRegistry:
    """Clients and agents by name, made lazily, once.

    A factory takes no argument and makes what every run in the process shares; or it takes one, the
    :class:`ExecutionContext`, and makes what belongs to that context (see :meth:`scope`). Pickling a registry keeps its
    factories and drops what they made.
    """

    def __init__(self, guard: AbstractContextManager[Any] | None = None) -> None:
        """
        Args:
            guard: a re-entrant lock, where several threads ask: then no factory is called twice. Without one the
                threads still share one object, but two that ask at once may both call its factory.
        """
        self._guard: AbstractContextManager[Any] = guard or nullcontext()
        self._factories: dict[Kind, dict[str, Factory]] = {"client": {}, "agent": {}}
        self._made: dict[tuple[Kind, str], Any] = {}
        self._watched: dict[tuple[str, int], WatchedAgent] = {}
        self._parent: LLMRegistry | None = None
        self._context: Any = None

    @classmethod
    def from_factories(cls, factories: Factories, guard: AbstractContextManager[Any] | None = None) -> Self:
        """The registry whose :meth:`factories` were sent here."""
        registry = cls(guard)
        for kind, named in factories.items():
            registry._factories[kind].update(named)
        return registry

    def register_client(self, name: str, factory: Factory | Any) -> None:
        """Registers what makes a client, or a client. ``"default"`` is the one that tasks get which name none."""
        self._register("client", name, factory if callable(factory) else Ready(factory))

    def register_agent(self, name: str, factory_or_agent: Factory | LLMAgent) -> None:
        """Registers what makes an agent, or an agent. A class is a factory.

        Raises:
            TypeError: it is neither.
        """
        if not isinstance(factory_or_agent, type) and isinstance(factory_or_agent, LLMAgent):
            self._register("agent", name, Ready(factory_or_agent))
        elif callable(factory_or_agent):
            self._register("agent", name, factory_or_agent)
        else:
            kind = type(factory_or_agent).__name__
            raise TypeError(f"LLM agent '{name}': an object with run(...) or a factory of one is needed, not {kind}.")

    def client(self, name: str | None = None) -> Any:
        """The client of a name; without a name the default one, an :class:`LLMClient` if none was registered.

        Raises:
            LLMNotRegisteredError: there is no client of that name.
        """
        if name is None and self._find("client", DEFAULT_CLIENT) is None:
            return self._root()._make("client", DEFAULT_CLIENT, LLMClient)
        return self._get("client", name or DEFAULT_CLIENT)

    def agent(self, name: str) -> Any:
        """The agent of a name.

        Raises:
            LLMNotRegisteredError: there is no agent of that name.
            TypeError: its factory made something that has no ``run``.
        """
        agent = self._get("agent", name)
        if OBSERVER.get() is None:
            return agent
        return self._watched.setdefault((name, id(agent)), WatchedAgent(name, agent))

    def factories(self) -> Factories:
        """What to send to another process: all factories, and ready objects in the place of theirs."""
        inherited = self._parent.factories() if self._parent is not None else {"client": {}, "agent": {}}
        return {kind: {**inherited[kind], **named} for kind, named in self._factories.items()}

    def scope(self, context: Any = None) -> LLMRegistry:
        """A registry for one context: sees all that this one has, and keeps for itself what is registered in it.

        Factories that take an argument get ``context``, and what they make is the scope's own.
        """
        scope = LLMRegistry(self._guard)
        scope._parent = self
        scope._context = context
        return scope

    def __reduce__(self) -> tuple[Any, ...]:
        return (LLMRegistry.from_factories, (self.factories(),))

    def _register(self, kind: Kind, name: str, factory: Factory) -> None:
        if not isinstance(name, str) or not name:
            raise TypeError(f"The name of an LLM {kind} is a non-empty string, not {name!r}.")
        if _required(factory) > 1:
            raise TypeError(f"LLM {kind} '{name}': a factory takes no argument, or one, the ExecutionContext.")
        self._factories[kind][name] = factory
        self._made.pop((kind, name), None)

    def _root(self) -> LLMRegistry:
        return self if self._parent is None else self._parent._root()

    def _find(self, kind: Kind, name: str) -> LLMRegistry | None:
        """The nearest registry that has the name."""
        if name in self._factories[kind]:
            return self
        return self._parent._find(kind, name) if self._parent is not None else None

    def _get(self, kind: Kind, name: str) -> Any:
        owner = self._find(kind, name)
        if owner is None:
            raise LLMNotRegisteredError(kind, name, tuple(sorted(self.factories()[kind])))
        factory = owner._factories[kind][name]
        if not takes_context(factory):
            return owner._make(kind, name, factory)
        if self._context is None:
            raise GraflowRuntimeError(
                f"LLM {kind} '{name}': its factory takes an ExecutionContext, and outside of a run there is none."
            )
        return self._make(kind, name, factory, self._context)

    def _make(self, kind: Kind, name: str, factory: Factory, *arguments: Any) -> Any:
        key = (kind, name)
        if key in self._made:
            return self._made[key]
        with self._guard:
            if key in self._made:
                return self._made[key]
            made = factory(*arguments)
            if made is None or (kind == "agent" and not isinstance(made, LLMAgent)):
                missing = "an object with run(...)" if kind == "agent" else "a client"
                raise TypeError(f"LLM {kind} '{name}': its factory returned {type(made).__name__}, not {missing}.")
            return self._made.setdefault(key, made)


def takes_context(factory: Factory) -> bool:
    """Whether a factory is to be called with the ExecutionContext, for each run, or without, once in a process."""
    return _required(factory) == 1


def _required(factory: Factory) -> int:
    """How many arguments the factory cannot do without."""
    try:
        parameters = inspect.signature(factory).parameters.values()
    except ValueError:  # a class or function in C that does not say
        return 0
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return sum(item.default is inspect.Parameter.empty and item.kind not in variable for item in parameters)
