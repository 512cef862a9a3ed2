"""A graph as content: one manifest that names each task's function by fingerprint, and the blobs that hold them.

The manifest of an unchanged workflow has the same bytes in every process, so its digest is the graph's name. Its nodes
are in pages, which versions share: a changed task changes its own blob, its page and the root, and the page is stored
with the root, as long as few have changed. The name says nothing of what is stored where.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields, replace
from functools import cached_property, partial
from typing import Any

from graflow_celery.codec.callables import encode_callable, fingerprint_callable, shipping
from graflow_celery.codec.canonical import canonical_json, digest
from graflow_celery.codec.envelope import Content
from graflow_celery.codec.fingerprint import fingerprint
from graflow_celery.codec.pages import LARGE, Entry, checked, is_small, opened, paged, stored, with_root
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
from graflow_celery.core.task import Ship, TaskWrapper
from graflow_celery.errors import BlobRejectedError, SerializationError

VERSION = 3
INLINE_BOUND = 512

_POLICIES: dict[str, type[Any]] = {
    "fifo": FifoPolicy,
    "priority": PriorityPolicy,
    "strict": StrictGroupPolicy,
    "best_effort": BestEffortGroupPolicy,
    "at_least_n": AtLeastNGroupPolicy,
    "critical": CriticalGroupPolicy,
}
_OPTIONS = TaskOptions()
_APART = ("id", "options", "policy", "exit_index")
_FIELDS = {item.name: item.default for item in fields(NodeSpec) if item.name not in _APART}
_NESTED: dict[str, Callable[..., Any]] = {"map": MapSpec, "owner": Owner}
_POLICY_NAMES = {kind: name for name, kind in _POLICIES.items()}

Blob = Callable[[], bytes]
#: Brings what is in a blob, checked: ``fetch(name, what)``.
Fetch = Callable[[str, str], Content]
#: Brings what is in several, at once.
FetchAll = Callable[[Sequence[str], str], Sequence[Content]]
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
    """What a client may have to upload.

    Attributes:
        hash: the graph's name, and that of its manifest's blob.
        parts: functions, bound values and policies by name, made only when they are absent.
        root, pages: what the manifest consists of; see `codec.pages`.
        kinds: the function of each task, by its blob's name.
    """

    hash: str
    parts: Mapping[str, Blob]
    root: bytes
    pages: Mapping[str, bytes]
    codec: ValueCodec
    kinds: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def has_pages(self) -> bool:
        """Whether pages may be blobs of their own."""
        return not is_small(self.pages)

    @property
    def names(self) -> list[str]:
        """All that a store may lack: to be asked for before :meth:`missing` is."""
        return [self.hash, *self.parts, *(self.pages if self.has_pages else ())]

    def missing(self, absent: Collection[str], manifest: bytes | None = None) -> dict[str, Blob]:
        """What a store needs that lacks those of ``names``, so that it has the whole graph.

        ``manifest`` is the blob that it has under the graph's hash: pages may have been stored with it.
        """
        blobs = {name: blob for name, blob in self.parts.items() if name in absent}
        inside: Collection[str] = ()
        if self.hash in absent:
            inside = with_root(self.pages, absent)
            data = stored(self.root, [self.pages[name] for name in inside])
            blobs[self.hash] = partial(self.codec.seal, data, "raw", self.hash)
        elif manifest is not None:
            inside = self._inside(manifest)
        for name, page in self.pages.items():
            if name in absent and name not in inside:
                blobs[name] = partial(self.codec.seal, page, "raw", name)
        return blobs

    def _inside(self, manifest: bytes) -> Collection[str]:
        """The pages that were stored with the root. Of a manifest that cannot be read, none can be told."""
        try:
            return opened(self.hash, self.codec.open(manifest, name=self.hash).payload)[1]
        except BlobRejectedError:
            return ()


@dataclass(frozen=True)
class LoadedGraph:
    """What a worker needs to run any node of a graph. ``base`` names the graph that it adds nodes to, if it does."""

    plan: Plan
    code: Mapping[str, CodeReference]
    factories: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    base: str = ""


def pack_graph(
    plan: Plan,
    tasks: Mapping[str, Executable],
    codec: ValueCodec,
    factories: Factories | None = None,
    base: str = "",
    *,
    ship: Ship = "auto",
) -> PackedGraph:
    """The manifest and blobs of a plan whose nodes were made of the given expressions.

    ``base`` is the graph that the plan adds nodes to, if it does; ``ship`` how functions travel whose tasks do not say.

    Raises:
        SerializationError: a function or a bound value cannot be sent; the message names the task.
    """
    blobs: dict[str, Blob] = {}
    functions: dict[tuple[int, Ship], str] = {}

    def function(wrapper: TaskWrapper) -> str:
        mode = wrapper.ship or ship
        known = functions.get((id(wrapper.func), mode))
        if known is None:
            known = fingerprint_callable(wrapper.func, what=f"task '{wrapper.task_id}'", ship=mode)
            functions[id(wrapper.func), mode] = known
            blobs[known] = partial(_function_blob, wrapper, mode, codec, known)
        return known

    def bound(task_id: str, name: str, value: Any, wrapper: TaskWrapper) -> list[Any]:
        if _is_small_json(value):
            return ["json", value]
        what = f"argument '{name}' of task '{task_id}'"
        mode = wrapper.ship or ship
        with shipping(wrapper.func, mode):
            name_of_value = fingerprint(value, what=what)
        blobs[name_of_value] = partial(_bound_blob, wrapper, mode, value, what, codec, name_of_value)
        return ["blob", name_of_value]

    entries: list[Entry] = []  # a list, which keeps the order in which they were written
    exits = {node.id: node.exits for node in plan.nodes.values() if node.exits}
    indices = _exit_indices(exits)
    for node in plan.nodes.values():
        described = _describe(node, indices.get((node.group, node.id), -1))
        if node.is_group:
            described["policy"] = _pack_policy(f"policy of group '{node.id}'", node.policy, codec, blobs)
        wrapper = code_of(tasks.get(node.id))
        if wrapper is not None:
            described["code"] = [
                function(wrapper),
                wrapper.inject_context,
                wrapper.resolve_keyword_args,
                {name: bound(node.id, name, value, wrapper) for name, value in wrapper.bound.items()},
            ]
            if wrapper.inject_llm_client or wrapper.inject_llm_agent:
                described["code"] += [wrapper.inject_llm_client, wrapper.inject_llm_agent]
        entries.append([node.id, described])
    pages = paged(
        entries, {node.id for node in plan.nodes.values() if len(node.entries) + len(node.successors) > LARGE}
    )
    content: dict[str, Any] = {"version": VERSION, "name": plan.name, "start": plan.start, "pages": list(pages)}
    if base:
        content["base"] = base
    if plan.scheduling != FifoPolicy():
        content["scheduling"] = _pack_policy("scheduling policy", plan.scheduling, codec, blobs)
    llm = _pack_factories(factories or {}, codec, blobs)
    if llm:
        content["llm"] = llm
    root = canonical_json(content)
    kinds = {node_id: described["code"][0] for node_id, described in entries if "code" in described}
    return PackedGraph(digest(root), blobs, root, pages, codec, kinds)


def load_graph(name: str, fetch: Fetch, codec: ValueCodec, fetch_all: FetchAll | None = None) -> LoadedGraph:
    """The graph of hash ``name``.

    Args:
        fetch: brings a blob: ``fetch(name, what)``. ``fetch_all`` brings several at once.

    Raises:
        BlobMissingError: a part of it is not there.
        BlobRejectedError: it is not what was stored under that name, or of a version that this package cannot read.
    """
    content, _, entries = _entries_of(name, fetch, fetch_all)
    nodes = _specs(entries, fetch, codec)
    code = {node_id: CodeReference(*described["code"]) for node_id, described in entries.items() if "code" in described}
    scheduling = _policy(content.get("scheduling", ["fifo"]), "scheduling policy", fetch, codec)
    plan = Plan(content["name"], content["start"], nodes, scheduling=scheduling)
    return LoadedGraph(plan, code, content.get("llm", {}), content.get("base", ""))


def _entries_of(
    name: str, fetch: Fetch, fetch_all: FetchAll | None
) -> tuple[dict[str, Any], list[str], dict[str, Any]]:
    """The root, the pages that are blobs of their own, and what is said of each node."""
    content, pages = _manifest(name, fetch)
    what = f"page of graph {name}"
    apart = [page for page in content["pages"] if page not in pages]
    found = fetch_all(apart, what) if fetch_all is not None else [fetch(page, what) for page in apart]
    pages |= {page: checked(page, blob.payload, what) for page, blob in zip(apart, found, strict=True)}
    entries: dict[str, Any] = {}
    for page in content["pages"]:
        entries.update(json.loads(pages[page]))
    return content, apart, entries


def _manifest(name: str, fetch: Fetch) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The root, and the pages that were stored with it. Raises BlobRejectedError."""
    what = f"graph {name}"
    root, pages = opened(name, fetch(name, what).payload)
    content: dict[str, Any] = json.loads(root)
    if content.get("version") != VERSION:
        raise BlobRejectedError(
            f"Blob {name} ({what}) has version {content.get('version')}; this worker reads {VERSION}. Upgrade it."
        )
    strange = pages.keys() - set(content["pages"])
    if strange:
        raise BlobRejectedError(f"Blob {name} ({what}) is not what was stored: page {min(strange)} is not of it.")
    return content, pages


def blob_names(name: str, fetch: Fetch, fetch_all: FetchAll | None = None) -> list[str]:
    """Every blob that the graph of hash ``name`` consists of, itself included. No function or value is decoded.

    Raises BlobMissingError, BlobRejectedError: its manifest or a page of it is gone, or fails a check.
    """
    content, pages, entries = _entries_of(name, fetch, fetch_all)
    packed: list[Sequence[Any]] = [content["scheduling"]] if "scheduling" in content else []
    names = dict.fromkeys((name, *pages))
    for described in entries.values():
        if "policy" in described:
            packed.append(described["policy"])
        if "code" in described:
            names[described["code"][0]] = None
            packed += described["code"][3].values()
    names |= {blob: None for kind, *rest in packed if kind == "blob" for blob in rest}
    names |= {factory: None for named in content.get("llm", {}).values() for factory in named.values()}
    return list(names)


def unchanged(packed: PackedGraph) -> PackedGraph:
    """The graph without the functions and values that have changed since: they must not be stored as what they were."""
    parts = {name: blob for name, blob in packed.parts.items() if isinstance(blob, partial) and _name_now(blob) == name}
    return replace(packed, parts=parts)


def _name_now(blob: partial[bytes]) -> str:
    """What a function or value is called as it is now; nothing, if it could not be sent any more."""
    made, *rest = blob.args
    try:
        if blob.func is _function_blob:
            return fingerprint_callable(made.func, what=made.task_id, ship=rest[0])
        if blob.func is _factory_blob:
            return fingerprint_callable(made, what=rest[0])
        if blob.func is _bound_blob:
            with shipping(made.func, rest[0]):
                return fingerprint(rest[1], what=rest[2])
        return fingerprint(made, what=rest[0])
    except SerializationError:
        return ""


def code_of(node: Executable | None) -> TaskWrapper | None:
    """The task whose function a node runs; None for groups and for tasks without a function."""
    wrapper = node.template if isinstance(node, MappedTask) else node
    return wrapper if isinstance(wrapper, TaskWrapper) else None


def _pack_factories(factories: Factories, codec: ValueCodec, blobs: dict[str, Blob]) -> dict[str, dict[str, str]]:
    """Names the blobs of the factories, and adds them to ``blobs``."""
    packed: dict[str, dict[str, str]] = {}
    for kind, named in factories.items():
        for name, factory in named.items():
            key = fingerprint_callable(factory, what=f"LLM {kind} '{name}'")
            blobs[key] = partial(_factory_blob, factory, f"LLM {kind} {name}", codec, key)
            packed.setdefault(kind, {})[name] = key
    return packed


def _factory_blob(factory: Callable[..., Any], what: str, codec: ValueCodec, name: str) -> bytes:
    return codec.seal(encode_callable(factory, task_id=what, allow_pickle=codec.allows_pickle), "raw", name)


def _function_blob(wrapper: TaskWrapper, ship: Ship, codec: ValueCodec, name: str) -> bytes:
    data = encode_callable(wrapper.func, task_id=wrapper.task_id, allow_pickle=codec.allows_pickle, ship=ship)
    return codec.seal(data, "raw", name)


def _value_blob(value: Any, what: str, codec: ValueCodec, name: str) -> bytes:
    content = codec.written(value, what=what)
    return codec.seal(content.payload, content.serializer, name)


def _bound_blob(wrapper: TaskWrapper, ship: Ship, value: Any, what: str, codec: ValueCodec, name: str) -> bytes:
    """A bound value; classes of the function's own module travel with it as they do with the function."""
    with shipping(wrapper.func, ship):
        return _value_blob(value, what, codec, name)


def _is_small_json(value: Any) -> bool:
    if value is None or isinstance(value, bool | int | float | str):
        return type(value) in (type(None), bool, int, float, str) and len(repr(value)) <= INLINE_BOUND
    return False


def _exit_indices(exits: Mapping[str, Sequence[str]]) -> dict[tuple[str | None, str], int]:
    """The place of each node among the exits of its group, which the group's entry tells."""
    return {(group, node): index for group, nodes in exits.items() for index, node in enumerate(nodes)}


def _describe(node: NodeSpec, exit_index: int) -> dict[str, Any]:
    """The node's fields that differ from the defaults, and from what the others tell."""
    described: dict[str, Any] = {} if node.exit_index == exit_index else {"exit_index": node.exit_index}
    for name, default in _FIELDS.items():
        value = getattr(node, name)
        if value != default:
            described[name] = list(astuple(value)) if isinstance(value, MapSpec | Owner) else value
    if node.exits == node.entries:
        described.pop("exits", None)
    elif not node.exits:
        described["exits"] = ()
    if node.options is not _OPTIONS and node.options != _OPTIONS:
        described["options"] = _options(node.options)
    return described


def _options(options: TaskOptions) -> dict[str, Any]:
    found = {item.name: getattr(options, item.name) for item in fields(TaskOptions)}
    differing = {name: value for name, value in found.items() if value != getattr(_OPTIONS, name)}
    if options.retry is not None:
        differing["retry"] = {item.name: getattr(options.retry, item.name) for item in fields(RetryPolicy)}
    return differing


def _pack_policy(
    what: str, policy: GroupPolicy | SchedulingPolicy, codec: ValueCodec, blobs: dict[str, Blob]
) -> list[Any]:
    """A policy of ours by its name and arguments, one of the user's as a blob."""
    if type(policy) in _POLICY_NAMES:
        # All policies of ours are dataclasses, which their common protocol cannot say.
        return [_POLICY_NAMES[type(policy)], *(getattr(policy, item.name) for item in fields(policy))]  # type: ignore[arg-type]
    name = fingerprint(policy, what=what)
    blobs[name] = partial(_value_blob, policy, what, codec, name)
    return ["blob", name]


def _specs(entries: Mapping[str, Mapping[str, Any]], fetch: Fetch, codec: ValueCodec) -> dict[str, NodeSpec]:
    groups = {node: described.get("exits", described.get("entries", ())) for node, described in entries.items()}
    indices = _exit_indices({node: exits for node, exits in groups.items() if exits})
    return {
        node: _spec(node, described, indices.get((described.get("group"), node), -1), fetch, codec)
        for node, described in entries.items()
    }


def _spec(node_id: str, described: Mapping[str, Any], exit_index: int, fetch: Fetch, codec: ValueCodec) -> NodeSpec:
    values: dict[str, Any] = {"exit_index": exit_index}
    for name, value in described.items():
        if name == "options":
            retry = value.get("retry")
            values[name] = TaskOptions(**{**value, "retry": None if retry is None else RetryPolicy(**retry)})
        elif name in _NESTED:
            values[name] = _NESTED[name](*value)
        elif name == "policy":
            values[name] = _policy(value, f"policy of group '{node_id}'", fetch, codec)
        elif name != "code":
            values[name] = tuple(value) if isinstance(value, list) else value
    values.setdefault("exits", values.get("entries", ()))
    return NodeSpec(id=node_id, **values)


def _policy(packed: Sequence[Any], what: str, fetch: Fetch, codec: ValueCodec) -> Any:
    kind, *arguments = packed
    if kind == "blob":
        return codec.read(fetch(arguments[0], what), what=what)
    return _POLICIES[kind](*arguments)
