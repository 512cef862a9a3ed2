"""Lets a tracer see the calls to models and agents that a task makes through what it was given here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Literal, Protocol

CallKind = Literal["generation", "agent"]


class Observer(Protocol):
    """What follows the calls of one attempt."""

    def observe(self, kind: CallKind, name: str, given: Mapping[str, Any], call: Callable[[], Any]) -> Any:
        """Makes the call and returns what it returns, or raises what it raises.

        Args:
            given: of a generation its ``model``, ``messages`` and ``parameters``; these may hold secrets.
        """


#: Set while the code of a traced attempt runs.
OBSERVER: ContextVar[Observer | None] = ContextVar("graflow_observer", default=None)


def observed(kind: CallKind, name: str, given: Mapping[str, Any], call: Callable[[], Any]) -> Any:
    """The call, seen by whatever follows the attempt."""
    observer = OBSERVER.get()
    return call() if observer is None else observer.observe(kind, name, given, call)


class WatchedAgent:
    """An agent in the place of which it stands: all of it but ``run`` is the agent's own."""

    def __init__(self, name: str, agent: Any) -> None:
        object.__setattr__(self, "_name", name)
        object.__setattr__(self, "_agent", agent)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        return observed("agent", self._name, {}, lambda: self._agent.run(*args, **kwargs))

    @property
    def __class__(self) -> Any:
        return type(self._agent)

    @__class__.setter
    def __class__(self, kind: Any) -> None:
        self._agent.__class__ = kind

    def __getattr__(self, name: str) -> Any:
        return getattr(self._agent, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._agent, name, value)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._agent(*args, **kwargs)

    def __repr__(self) -> str:
        return repr(self._agent)
