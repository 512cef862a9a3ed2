"""A graph as content: one manifest that names each task's function by fingerprint, and the blobs that hold them.

The manifest of an unchanged workflow has the same bytes in every process, so its digest is the graph's name; a changed
task changes its own blob and the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from functools import partial
from typing import Any

from graflow_celery.codec.callables import encode_callable
from graflow_celery.codec.canonical import canonical_json, digest
from graflow_celery.codec.envelope import Content
from graflow_celery.codec.fingerprint import fingerprint
from graflow_celery.codec.values import ValueCodec
from graflow_celery.core.expr import Executable
from graflow_celery.core.mapping import MappedTask
from graflow_celery.core.plan import MapSpec, NodeSpec, Owner, Plan, TaskOptions
from graflow_celery.core.policy import (
    AtLeastNGroupPolicy,
    BestEffortGroupPolicy,
    CriticalGroupPolicy,
    FifoPolicy,
    GroupPolicy,
    PriorityPolicy,
    SchedulingPolicy,
    StrictGroupPolicy,
)
from graflow_celery.core.retry import RetryPolicy
from graflow_celery.core.task import TaskWrapper
from graflow_celery.errors import BlobRejectedError

VERSION = 2
INLINE_BOUND = 512

_POLICIES: dict[str, type[Any]] = {
    "fifo": FifoPolicy,
    "priority": PriorityPolicy,
    "strict": StrictGroupPolicy,
    "best_effort": BestEffortGroupPolicy,
    "at_least_n": AtLeastNGroupPolicy,
    "critical": CriticalGroupPolicy,
}
_POLICY_NAMES = {kind: name for name, kind in _POLICIES.items()}

Blob = Callable[[], bytes]
#: Brings what is in a blob, checked: ``fetch(name, what)``.
Fetch = Callable[[str, str], Content]
#: ``{"client" or "agent": {name: factory}}``, as LLMRegistry.factories() gives them.
Factories = Mapping[Any, Mapping[str, Callable[..., Any]]]


@dataclass(frozen=True, slots=True)
class CodeReference:
    """Where a node's function and bound values are: blobs by their names, small JSON values in place."""

    function: str
    inject_context: bool
    resolve_keyword_args: bool
    bound: Mapping[str, tuple[str, Any]]
    inject_llm_client: bool = False
    inject_llm_agent: str | None = None


@dataclass(frozen=True)
class PackedGraph:
    """What a client uploads: the graph's hash and its blobs by name, made only when they are absent."""

    hash: str
    blobs: Mapping[str, Blob]


@dataclass(frozen=True)
class LoadedGraph:
    """What a worker needs to run any node of a graph. ``base`` names the graph that it adds nodes to, if it does."""

    plan: Plan
    code: Mapping[str, CodeReference]
    factories: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    base: str = ""


def pack_graph(
    plan: Plan, tasks: Mapping[str, Executable], codec: ValueCodec, factories: Factories | None = None, base: str = ""
) -> PackedGraph:
    """The manifest and blobs of a plan whose nodes were made of the given expressions.

    ``base`` is the graph that the plan adds nodes to, if it does.

    Raises:
        SerializationError: a function or a bound value cannot be sent; the message names the task.
    """
    blobs: dict[str, Blob] = {}
    functions: dict[int, str] = {}

    def function(wrapper: TaskWrapper) -> str:
        known = functions.get(id(wrapper.func))
        if known is None:
            known = functions[id(wrapper.func)] = fingerprint(wrapper.func, what=f"task '{wrapper.task_id}'")
            blobs[known] = partial(_function_blob, wrapper, codec, known)
        return known

    def bound(task_id: str, name: str, value: Any) -> list[Any]:
        if _is_small_json(value):
            return ["json", value]
        what = f"argument '{name}' of task '{task_id}'"
        name_of_value = fingerprint(value, what=what)
        blobs[name_of_value] = partial(_value_blob, value, what, codec, name_of_value)
        return ["blob", name_of_value]

    nodes: list[list[Any]] = []  # a list, which keeps the order in which they were written
    for node in plan.nodes.values():
        described = _describe(node)
        if node.is_group:
            described["policy"] = _pack_policy(f"policy of group '{node.id}'", node.policy, codec, blobs)
        wrapper = code_of(tasks.get(node.id))
        if wrapper is not None:
            described["code"] = [
                function(wrapper),
                wrapper.inject_context,
                wrapper.resolve_keyword_args,
                {name: bound(node.id, name, value) for name, value in wrapper.bound.items()},
            ]
            if wrapper.inject_llm_client or wrapper.inject_llm_agent:
                described["code"] += [wrapper.inject_llm_client, wrapper.inject_llm_agent]
        nodes.append([node.id, described])
    content: dict[str, Any] = {"version": VERSION, "name": plan.name, "start": plan.start, "nodes": nodes}
    if base:
        content["base"] = base
    if plan.scheduling != FifoPolicy():
        content["scheduling"] = _pack_policy("scheduling policy", plan.scheduling, codec, blobs)
    llm = _pack_factories(factories or {}, codec, blobs)
    if llm:
        content["llm"] = llm
    manifest = canonical_json(content)
    name = digest(manifest)
    blobs[name] = partial(codec.seal, manifest, "raw", name)
    return PackedGraph(name, blobs)


def load_graph(name: str, fetch: Fetch, codec: ValueCodec) -> LoadedGraph:
    """The graph of hash ``name``; ``fetch(name, what)`` brings a blob.

    Raises:
        BlobRejectedError: it is not what was stored under that name, or of a version that this package cannot read.
    """
    what = f"graph {name}"
    manifest = bytes(fetch(name, what).payload)
    if digest(manifest) != name:
        raise BlobRejectedError(f"Blob {name} ({what}) is not what was stored: its digest differs.")
    content = json.loads(manifest)
    if content.get("version") != VERSION:
        raise BlobRejectedError(
            f"Blob {name} ({what}) has version {content.get('version')}; this worker reads {VERSION}. Upgrade it."
        )
    nodes = {node_id: _spec(node_id, described, fetch, codec) for node_id, described in content["nodes"]}
    code = {
        node_id: CodeReference(*described["code"]) for node_id, described in content["nodes"] if "code" in described
    }
    scheduling = _policy(content.get("scheduling", ["fifo"]), "scheduling policy", fetch, codec)
    plan = Plan(content["name"], content["start"], nodes, scheduling=scheduling)
    return LoadedGraph(plan, code, content.get("llm", {}), content.get("base", ""))


def blob_names(name: str, fetch: Fetch, codec: ValueCodec) -> list[str]:
    """Every blob that the graph of hash ``name`` consists of, itself included. Raises BlobRejectedError."""
    names = {name: None}

    def noted(blob: str, what: str) -> Content:
        names[blob] = None
        return fetch(blob, what)

    loaded = load_graph(name, noted, codec)
    for reference in loaded.code.values():
        names[reference.function] = None
        names |= {value: None for kind, value in reference.bound.values() if kind == "blob"}
    names |= {factory: None for kind in loaded.factories.values() for factory in kind.values()}
    return list(names)


def code_of(node: Executable | None) -> TaskWrapper | None:
    """The task whose function a node runs; None for groups and for tasks without a function."""
    wrapper = node.template if isinstance(node, MappedTask) else node
    return wrapper if isinstance(wrapper, TaskWrapper) else None


def _pack_factories(factories: Factories, codec: ValueCodec, blobs: dict[str, Blob]) -> dict[str, dict[str, str]]:
    """Names the blobs of the factories, and adds them to ``blobs``."""
    packed: dict[str, dict[str, str]] = {}
    for kind, named in factories.items():
        for name, factory in named.items():
            key = fingerprint(factory, what=f"LLM {kind} '{name}'")
            blobs[key] = partial(_factory_blob, factory, f"LLM {kind} {name}", codec, key)
            packed.setdefault(kind, {})[name] = key
    return packed


def _factory_blob(factory: Callable[..., Any], what: str, codec: ValueCodec, name: str) -> bytes:
    return codec.seal(encode_callable(factory, task_id=what, allow_pickle=codec.allows_pickle), "raw", name)


def _function_blob(wrapper: TaskWrapper, codec: ValueCodec, name: str) -> bytes:
    data = encode_callable(wrapper.func, task_id=wrapper.task_id, allow_pickle=codec.allows_pickle)
    return codec.seal(data, "raw", name)


def _value_blob(value: Any, what: str, codec: ValueCodec, name: str) -> bytes:
    content = codec.written(value, what=what)
    return codec.seal(content.payload, content.serializer, name)


def _is_small_json(value: Any) -> bool:
    if value is None or isinstance(value, bool | int | float | str):
        return type(value) in (type(None), bool, int, float, str) and len(repr(value)) <= INLINE_BOUND
    return False


def _describe(node: NodeSpec) -> dict[str, Any]:
    """The node's fields that differ from the defaults."""
    described: dict[str, Any] = {}
    for item in fields(NodeSpec):
        value = getattr(node, item.name)
        if item.name in ("id", "options", "policy") or value == item.default:
            continue
        described[item.name] = list(astuple(value)) if isinstance(value, MapSpec | Owner) else value
    options = {name: value for name, value in asdict(node.options).items() if value != getattr(TaskOptions(), name)}
    if options:
        described["options"] = options
    return described


def _pack_policy(
    what: str, policy: GroupPolicy | SchedulingPolicy, codec: ValueCodec, blobs: dict[str, Blob]
) -> list[Any]:
    """A policy of ours by its name and arguments, one of the user's as a blob."""
    if type(policy) in _POLICY_NAMES:
        return [_POLICY_NAMES[type(policy)], *(getattr(policy, item.name) for item in fields(policy))]  # type: ignore[arg-type]
    name = fingerprint(policy, what=what)
    blobs[name] = partial(_value_blob, policy, what, codec, name)
    return ["blob", name]


def _spec(node_id: str, described: Mapping[str, Any], fetch: Fetch, codec: ValueCodec) -> NodeSpec:
    values: dict[str, Any] = {name: _frozen(value) for name, value in described.items() if name != "code"}
    if "options" in described:
        options = dict(described["options"])
        retry = options.pop("retry", None)
        values["options"] = TaskOptions(**options, retry=None if retry is None else RetryPolicy(**retry))
    for name, kind in (("map", MapSpec), ("owner", Owner)):
        if name in described:
            values[name] = kind(*described[name])
    if "policy" in described:
        values["policy"] = _policy(described["policy"], f"policy of group '{node_id}'", fetch, codec)
    return NodeSpec(id=node_id, **values)


def _policy(packed: Sequence[Any], what: str, fetch: Fetch, codec: ValueCodec) -> Any:
    kind, *arguments = packed
    if kind == "blob":
        return codec.read(fetch(arguments[0], what), what=what)
    return _POLICIES[kind](*arguments)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
