"""A checkpoint: everything that a run has come to, as bytes that another process, on either backend, can go on from.

Its bytes are a line that says what they are and in which version, the digest of the rest, and the rest: an index in
JSON, sealed as `codec.values` seals content, and after it the blobs that the index names, with their digests. So where
a secret is set, its signature covers all of them, and nothing is decoded before it was checked.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from graflow_celery.codec.canonical import digest
from graflow_celery.codec.exceptions import decode_exception, encode_exception
from graflow_celery.codec.manifest import Factories, pack_graph
from graflow_celery.codec.values import ValueCodec
from graflow_celery.core.commands import from_text, to_text
from graflow_celery.core.resume import Asked, PlanOf, pending, renamed
from graflow_celery.core.state import Emission, NodeRecord, NodeState, RunState, RunStatus
from graflow_celery.engine.stored import StoredGraphs
from graflow_celery.engine.written import WrittenGraph
from graflow_celery.errors import BlobMissingError, BlobRejectedError, CheckpointError, RunStateError
from graflow_celery.ports import FeedbackRecord, Snapshot

VERSION = 2
MAGIC = b"graflow_celery checkpoint "
_PICKLE = b"\x80"
_LENGTH = struct.Struct(">I")
_DAMAGED = "it is cut short or damaged. Go on from another one."


@dataclass(frozen=True)
class CheckpointMetadata:
    """What is known of a checkpoint besides the run's state.

    Attributes:
        session_id: the id of the run that it was taken of.
        created_at: when it was taken, in UTC, as ISO 8601 writes it.
        steps: how many attempts of tasks had begun.
        backend: where the run ran: ``{"run": "local" or "celery", "channel": "memory" or "redis"}``.
        user_metadata: what it was taken with, and what the task adds that took it.
    """

    checkpoint_id: str
    session_id: str
    created_at: str
    steps: int
    start_node: str | None
    backend: dict[str, str]
    user_metadata: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CheckpointMetadata:
        return cls(**data)


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds. ``graph`` is the hash of the workflow's graph, ``blobs`` are graphs and functions."""

    metadata: CheckpointMetadata
    workflow: str
    graph: str
    snapshot: Snapshot
    blobs: Mapping[str, bytes]


@dataclass(frozen=True)
class SentGraphs:
    """The graphs of a run as blobs; ``names`` are the hashes of those of added tasks that were named otherwise."""

    root: str
    blobs: Mapping[str, bytes]
    names: Mapping[str, str] = field(default_factory=dict)


def send_graphs(
    written: Mapping[str, WrittenGraph], stored: StoredGraphs | None, codec: ValueCodec, factories: Factories
) -> SentGraphs:
    """Packs the graphs of a run whose functions are in this process; those that were sent here stay as they are.

    Raises:
        SerializationError: a function cannot be sent; the message names the task.
    """
    blobs: dict[str, bytes] = {} if stored is None else dict(stored.blobs)
    names: dict[str, str] = {}
    root = "" if stored is None else stored.root
    for graph, found in written.items():
        plan = found.plan
        nodes = {
            node: spec
            if spec.owner is None
            else replace(spec, owner=replace(spec.owner, graph=names.get(spec.owner.graph, spec.owner.graph)))
            for node, spec in plan.nodes.items()
        }
        packed = pack_graph(replace(plan, nodes=nodes), found.tasks, codec, None if graph else factories, base=root)
        absent = [name for name in packed.names if name not in blobs]
        blobs |= {name: blob() for name, blob in packed.missing(absent, blobs.get(packed.hash)).items()}
        if graph:
            names[graph] = packed.hash
        else:
            root = packed.hash
    return SentGraphs(root, blobs, names)


def checkpoint_of(metadata: CheckpointMetadata, workflow: str, snapshot: Snapshot, graphs: SentGraphs) -> Checkpoint:
    names = graphs.names
    feedback = [replace(record, graph=names.get(record.graph, record.graph)) for record in snapshot.feedback]
    kept = replace(snapshot, state=renamed(snapshot.state, names), feedback=feedback)
    return Checkpoint(metadata, workflow, graphs.root, kept, graphs.blobs)


def continued(checkpoint: Checkpoint, run_id: str, plan_of: PlanOf) -> tuple[Snapshot, tuple[Emission, ...]]:
    """What the run ``run_id`` starts with that goes on from a checkpoint, and what has to be carried out for it.

    What was asked of people is asked under the new run's ids, and may wait again for as long as it was given.
    """
    feedback = [_asked_by(record, run_id) for record in checkpoint.snapshot.feedback]
    waits = [
        Asked(record.node, record.attempt, record.id, record.request["timeout"])
        for record in feedback
        if record.response is None and record.request.get("timeout") is not None
    ]
    state, emissions = pending(checkpoint.snapshot.state, plan_of, waits)
    return replace(checkpoint.snapshot, state=state, feedback=feedback), emissions


def _asked_by(record: FeedbackRecord, run_id: str) -> FeedbackRecord:
    request_id = f"{run_id}-{record.id.rpartition('-')[2]}"
    request = {**record.request, "feedback_id": request_id, "session_id": run_id}
    response = None if record.response is None else {**record.response, "feedback_id": request_id}
    return replace(record, id=request_id, request=request, response=response, expired=False)


# --- to bytes -------------------------------------------------------------------------------------------------


def pack(checkpoint: Checkpoint, codec: ValueCodec) -> bytes:
    """The checkpoint as bytes.

    Raises:
        SerializationError: a value cannot be written by a serializer that the settings allow; it is named.
    """
    blobs = dict(checkpoint.blobs)
    snapshot, metadata = checkpoint.snapshot, checkpoint.metadata

    def kept(value: Any, what: str) -> str:
        data = codec.encode(value, what=what)
        name = digest(data)
        blobs[name] = data
        return name

    def all_kept(values: Mapping[str, Any], what: str) -> dict[str, str]:
        return {key: kept(value, f"{what} '{key}'") for key, value in values.items()}

    index = {
        "metadata": {**metadata.to_dict(), "user_metadata": kept(metadata.user_metadata, "the checkpoint's metadata")},
        "workflow": checkpoint.workflow,
        "graph": checkpoint.graph,
        "graphs": list(checkpoint.blobs),
        "state": _state_to_json(snapshot.state),
        "results": all_kept(snapshot.results, "result of task"),
        "channel": all_kept(snapshot.channel, "channel key"),
        "ttls": dict(snapshot.ttls),
        "inputs": all_kept(snapshot.inputs, "input of"),
        "errors": {
            node: encode_exception(error, allow_pickle=codec.allows_pickle, codec=codec)
            for node, error in snapshot.errors.items()
        },
        "feedback": [asdict(record) for record in snapshot.feedback],
        "blobs": [[name, len(data), digest(data)] for name, data in blobs.items()],
    }
    sealed = codec.seal(_to_json(index), "raw")
    body = b"".join((_LENGTH.pack(len(sealed)), sealed, *blobs.values()))
    return b"".join((MAGIC, str(VERSION).encode(), b"\n", digest(body).encode(), b"\n", body))


def _to_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")


def _state_to_json(state: RunState) -> dict[str, Any]:
    fields = {name: getattr(state, name) for name in _PLAIN}
    outbox = [[to_text(item.command), item.weight, item.delay, item.reenters] for item in state.outbox.values()]
    nodes = {key: list(asdict(replace(record, worker="")).values()) for key, record in state.nodes.items()}
    return {**fields, "status": state.status.value, "nodes": nodes, "outbox": outbox}


_PLAIN = (
    "reason",
    "outstanding",
    "max_steps",
    "steps",
    "ended",
    "arrivals",
    "counts",
    "jumps",
    "last_node",
    "failed_node",
)


# --- and back -------------------------------------------------------------------------------------------------


def unpack(data: bytes, path: str, codec: ValueCodec) -> Checkpoint:
    """The checkpoint in some bytes that were found at ``path``.

    Raises:
        CheckpointError: they are none, of a newer version, damaged, signed with another secret, or hold something that
            cannot be rebuilt here.
    """
    try:
        return _unpacked(_body(data, path), path, codec)
    except (BlobRejectedError, BlobMissingError) as error:
        raise CheckpointError(path, f"its content was refused. {error}") from error
    except (KeyError, TypeError, ValueError, struct.error, RunStateError) as error:
        raise CheckpointError(path, f"{_DAMAGED} ({type(error).__name__}: {error})") from error


def _body(data: bytes, path: str) -> bytes:
    if not data.startswith(MAGIC):
        if data.startswith(_PICKLE):
            raise CheckpointError(
                path,
                "it is a pickle, as graflow and other programs write them, and was not read. Take the checkpoint with "
                "graflow_celery: context.checkpoint() in a task, or execute(checkpoint_every=...).",
            )
        raise CheckpointError(path, "it is no checkpoint of graflow_celery. Give the path that checkpoint() returned.")
    version, _, rest = data[len(MAGIC) :].partition(b"\n")
    if not version.isdigit():
        raise CheckpointError(path, _DAMAGED)
    if int(version) != VERSION:
        raise CheckpointError(
            path,
            f"it has format {int(version)} and this process reads {VERSION}. Use the version of graflow_celery that "
            f"wrote it.",
        )
    expected, _, body = rest.partition(b"\n")
    if digest(body).encode() != expected:
        raise CheckpointError(path, _DAMAGED)
    return body


def _unpacked(body: bytes, path: str, codec: ValueCodec) -> Checkpoint:
    (length,) = _LENGTH.unpack_from(body)
    content = codec.open(body[_LENGTH.size : _LENGTH.size + length], what="the checkpoint's index")
    index = json.loads(bytes(content.payload).decode("utf-8", "surrogatepass"))
    blobs = dict(_blobs(body[_LENGTH.size + length :], index["blobs"], path))

    def value(name: str, what: str) -> Any:
        return codec.decode(blobs[name], what=what)

    def values(names: Mapping[str, str], what: str) -> dict[str, Any]:
        return {key: value(name, f"{what} '{key}'") for key, name in names.items()}

    metadata = index["metadata"]
    user = value(metadata["user_metadata"], "the checkpoint's metadata")
    errors = {
        node: decode_exception(record, allow_pickle=codec.allows_pickle, codec=codec)
        for node, record in index["errors"].items()
    }
    snapshot = Snapshot(
        _state_from_json(index["state"]),
        values(index["results"], "result of task"),
        errors,
        values(index["channel"], "channel key"),
        values(index["inputs"], "input of"),
        [FeedbackRecord(**record) for record in index["feedback"]],
        index["ttls"],
    )
    graphs = {name: blobs[name] for name in index["graphs"]}
    return Checkpoint(
        CheckpointMetadata.from_dict({**metadata, "user_metadata": user}),
        index["workflow"],
        index["graph"],
        snapshot,
        graphs,
    )


def _blobs(data: bytes, listed: Iterable[tuple[str, int, str]], path: str) -> Iterator[tuple[str, bytes]]:
    start = 0
    for name, length, expected in listed:
        blob = data[start : start + length]
        if digest(blob) != expected:
            raise CheckpointError(path, _DAMAGED)
        yield name, blob
        start += length


def _state_from_json(data: Mapping[str, Any]) -> RunState:
    outbox = [Emission(from_text(text), weight, delay, reenters) for text, weight, delay, reenters in data["outbox"]]
    return RunState(
        **{
            **{name: data[name] for name in _PLAIN},
            "status": RunStatus(data["status"]),
            "nodes": {key: NodeRecord(NodeState(state), *rest) for key, (state, *rest) in data["nodes"].items()},
            "arrivals": {key: (arrived, live) for key, (arrived, live) in data["arrivals"].items()},
            "jumps": {group: tuple(targets) for group, targets in data["jumps"].items()},
            "outbox": {item.command: item for item in outbox},
        }
    )
