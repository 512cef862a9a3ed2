"""Graphs and functions that were sent: from blobs to what a node runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any

from graflow_celery.codec.callables import decode_callable
from graflow_celery.codec.envelope import Content
from graflow_celery.codec.manifest import CodeReference, Fetch, LoadedGraph, load_graph
from graflow_celery.codec.values import ValueCodec
from graflow_celery.core.activation import item_of
from graflow_celery.core.plan import Plan
from graflow_celery.engine.llm import Factory, Kind, LLMRegistry
from graflow_celery.engine.node import NodeCode
from graflow_celery.errors import BlobMissingError

#: ``differs(blob, task_id, name)``
Differs = Callable[[str, str, str], None]


class StoredCode:
    """Loads what blobs hold.

    Args:
        fetch: brings a blob by its name: ``fetch(name, what)``.
        where: how errors name this process: ``"worker w1:17"``.
        differs: told of an imported function with other code than where it was sent: the blob that refers to it, the
            task and the function's name. Without it nothing is compared.
    """

    def __init__(self, fetch: Fetch, codec: ValueCodec, where: str, differs: Differs | None = None) -> None:
        self._fetch = fetch
        self._codec = codec
        self._where = where
        self._differs = differs

    def node(self, reference: CodeReference, node: str) -> NodeCode:
        """The function and bound values of a node.

        Raises:
            CodeNotFoundError: a module cannot be imported here. CodeMismatchError: ``differs`` raises it.
            BlobMissingError, BlobRejectedError: what holds it is not there, or fails a check.
        """
        func = self._callable(reference.function, f"function of task '{node}'", node)
        bound = {name: self._bound(node, name, kind, value) for name, (kind, value) in reference.bound.items()}
        return NodeCode.build(
            node,
            func,
            reference.inject_context,
            reference.resolve_keyword_args,
            bound,
            reference.inject_llm_client,
            reference.inject_llm_agent,
        )

    def llm(self, sent: Mapping[str, Mapping[str, str]], guard: AbstractContextManager[Any]) -> LLMRegistry:
        """A registry of factories, by the names of their blobs, which are fetched when they are first needed.

        ``guard``: see :class:`LLMRegistry`.
        """
        kinds: tuple[Kind, ...] = ("client", "agent")
        factories = {
            kind: {name: self._factory(kind, name, key) for name, key in sent.get(kind, {}).items()} for kind in kinds
        }
        return LLMRegistry.from_factories(factories, guard)

    def _factory(self, kind: str, name: str, key: str) -> SentFactory:
        what = f"LLM {kind} {name}"
        return SentFactory(lambda: self._callable(key, what, what))

    def _callable(self, key: str, what: str, task_id: str) -> Callable[..., Any]:
        data = bytes(self._fetch(key, what).payload)
        return decode_callable(
            data,
            task_id=task_id,
            where=self._where,
            allow_pickle=self._codec.allows_pickle,
            on_difference=None if self._differs is None else partial(self._differs, key, task_id),
        )

    def _bound(self, node: str, name: str, kind: str, value: Any) -> Any:
        if kind == "json":
            return value
        what = f"argument '{name}' of task '{node}'"
        return self._codec.read(self._fetch(value, what), what=what)


class SentFactory:
    """A factory that was sent, loaded when it is first needed."""

    def __init__(self, load: Callable[[], Factory]) -> None:
        self._load = load

    @cached_property
    def factory(self) -> Factory:
        return self._load()

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.factory)

    def __call__(self, *arguments: Any) -> Any:
        return self.factory(*arguments)


class StoredGraphs:
    """The graphs of one run out of blobs that are all at hand. ``root`` is the workflow's own graph.

    Raises:
        BlobMissingError, BlobRejectedError: the root's blob is not there, or fails a check.
    """

    def __init__(self, root: str, blobs: Mapping[str, bytes], codec: ValueCodec, where: str) -> None:
        self.root = root
        self.blobs = blobs
        self._codec = codec
        self._code = StoredCode(self._fetch, codec, where)
        self._loaded: dict[str, LoadedGraph] = {"": load_graph(root, self._fetch, codec)}

    def plan(self, graph: str = "") -> Plan:
        """The plan of the workflow as written, or of it with the tasks of an added graph."""
        loaded = self._load(graph)
        return loaded.plan if graph == "" else self._load("").plan.extended(graph, loaded.plan.nodes)

    def code(self, graph: str, node: str) -> NodeCode:
        """See :meth:`StoredCode.node`. Of a task without a function: one that does nothing."""
        known = self._load(graph).code
        item = item_of(node)
        reference = known.get(node) or known.get(item[0] if item is not None else node)
        return NodeCode(_point) if reference is None else self._code.node(reference, node)

    def llm(self, guard: AbstractContextManager[Any]) -> LLMRegistry:
        return self._code.llm(self._load("").factories, guard)

    def _load(self, graph: str) -> LoadedGraph:
        if graph not in self._loaded:
            self._loaded[graph] = load_graph(graph, self._fetch, self._codec)
        return self._loaded[graph]

    def _fetch(self, name: str, what: str) -> Content:
        if name not in self.blobs:
            raise BlobMissingError(name, what)
        return self._codec.open(self.blobs[name], what=what, name=name)


def _point() -> None:
    """What a task without a function does."""
