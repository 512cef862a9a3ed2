"""What a process needs to take part in distributed runs: connections, stores and the engine."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from celery import Celery

from graflow_celery.celery_backend.publisher import CeleryExecutor
from graflow_celery.codec.callables import decode_callable
from graflow_celery.codec.manifest import CodeReference, LoadedGraph, load_graph
from graflow_celery.codec.values import ValueCodec
from graflow_celery.core.commands import Command
from graflow_celery.engine.node import NodeCode
from graflow_celery.engine.runner import Engine
from graflow_celery.ports import RunRef
from graflow_celery.redis_backend.channel import RedisChannel
from graflow_celery.redis_backend.client import Scripts, connect, reported
from graflow_celery.redis_backend.content_store import ContentStore
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.liveness import Liveness
from graflow_celery.redis_backend.run_store import Lifetimes, RedisRunStore
from graflow_celery.redis_backend.values import ValueStore
from graflow_celery.settings import Settings

GRAPHS_KEPT = 64
FUNCTIONS_KEPT = 4096


class Runtime:
    """One per process and app. Nothing connects before it is used; usable from many threads."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.keys = Keys(settings.key_prefix)
        self.client = connect(settings.redis_url)
        self.scripts = Scripts(self.client)
        secret = settings.secret_key
        keys = (secret.get_secret_value().encode(),) if secret else ()
        self.codec = ValueCodec(serializers=settings.serializers, keys=keys)
        self.content = ContentStore(self.client, self.keys, settings.run_ttl, settings.worker_cache_bytes)
        self.values = ValueStore(self.codec, self.content, settings.value_threshold)
        lifetimes = Lifetimes(settings.run_ttl, settings.result_ttl, settings.dispatch_grace)
        self.store = RedisRunStore(self.client, self.scripts, self.keys, self.values, lifetimes)
        self.liveness = Liveness(self.client, self.scripts, self.keys, settings.heartbeat_timeout)
        self.engine = Engine(self.store, CeleryExecutor(app, self._acknowledge))
        self._graphs: OrderedDict[str, LoadedGraph] = OrderedDict()
        self._functions: OrderedDict[tuple[str, str], NodeCode] = OrderedDict()
        self._lock = threading.Lock()

    @cached_property
    def where(self) -> str:
        """How errors of this process name it."""
        return f"{os.uname().nodename}:{os.getpid()}"

    def _acknowledge(self, run: RunRef, commands: Sequence[Command]) -> None:
        with reported(self.settings.redis_url):
            self.store.acknowledge(run, commands)

    def channel(self, run_id: str) -> RedisChannel:
        key = self.keys.run(run_id).channel
        return RedisChannel(self.client, self.scripts, key, self.values, self.settings.run_ttl)

    def graph(self, name: str) -> LoadedGraph:
        """A graph by its hash, from the cache or the content store. Raises BlobMissingError, BlobRejectedError."""
        with self._lock:
            if name in self._graphs:
                self._graphs.move_to_end(name)
                return self._graphs[name]
        loaded = load_graph(name, self.content.get, self.codec)
        with self._lock:
            self._graphs[name] = loaded
            while len(self._graphs) > GRAPHS_KEPT:
                self._graphs.popitem(last=False)
        return loaded

    def code(self, run: RunRef, node: str) -> NodeCode:
        """A node's function and bound values.

        Raises:
            CodeNotFoundError: a module cannot be imported here. BlobMissingError, BlobRejectedError: see there.
        """
        reference = self.graph(run.graph).code.get(node)
        if reference is None:
            return NodeCode(_point)
        key = (run.graph, node)
        with self._lock:
            if key in self._functions:
                self._functions.move_to_end(key)
                return self._functions[key]
        loaded = self._load(reference, node)
        with self._lock:
            self._functions[key] = loaded
            while len(self._functions) > FUNCTIONS_KEPT:
                self._functions.popitem(last=False)
        return loaded

    def _load(self, reference: CodeReference, node: str) -> NodeCode:
        what = f"function of task '{node}'"
        _, data = self.codec.open(self.content.get(reference.function, what))
        where = f"worker {self.where}"
        func = decode_callable(data, task_id=node, where=where, allow_pickle=self.codec.allows_pickle)
        bound = {name: self._bound(node, name, kind, value) for name, (kind, value) in reference.bound.items()}
        return NodeCode.build(func, reference.inject_context, reference.resolve_keyword_args, bound)

    def _bound(self, node: str, name: str, kind: str, value: Any) -> Any:
        if kind == "json":
            return value
        what = f"argument '{name}' of task '{node}'"
        return self.codec.decode(self.content.get(value, what), what=what)


def _point() -> None:
    """What a task without a function does."""
