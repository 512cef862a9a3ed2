"""A run in Redis as a whole: read in one step, and put back as a new run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from graflow_celery.codec.exceptions import decode_exception, encode_exception
from graflow_celery.core.commands import from_text, to_text
from graflow_celery.core.state import Emission, NodeRecord, NodeState, RunState, RunStatus
from graflow_celery.errors import RunNotFoundError
from graflow_celery.ports import FeedbackRecord, RunRef, Snapshot
from graflow_celery.redis_backend.client import Client
from graflow_celery.redis_backend.events import MAX_EVENTS
from graflow_celery.redis_backend.holdings import Holdings
from graflow_celery.redis_backend.keys import Keys, RunKeys
from graflow_celery.redis_backend.lifetimes import Lifetimes
from graflow_celery.redis_backend.progress import counts_of
from graflow_celery.redis_backend.slices import put_fields, put_scores
from graflow_celery.redis_backend.values import DEADLINE, ValueStore

_LIVE, _COUNT, _JUMP = "\0", "\0n:", "\0jump:"
_WATCHED = (NodeState.QUEUED, NodeState.RUNNING)


class RedisSnapshots:
    """Reads and restores runs, and notes in a run's events what is no transition of it."""

    def __init__(
        self, client: Client, keys: Keys, values: ValueStore, lifetimes: Lifetimes, holdings: Holdings
    ) -> None:
        self._client = client
        self._keys = keys
        self._values = values
        self._lifetimes = lifetimes
        self._holdings = holdings

    def snapshot(self, run: RunRef) -> Snapshot:
        """The run as it is at this moment.

        Raises:
            RunNotFoundError: there is no such run. BlobMissingError: a large value of it is gone.
        """
        keys = self._keys.run(run.id)
        with self._client.pipeline(transaction=True) as pipe:
            pipe.time()
            for name in (keys.meta, keys.nodes, keys.joins, keys.results, keys.errors, keys.inputs, keys.channel):
                pipe.hgetall(name)
            pipe.hvals(keys.feedback)
            pipe.zrange(keys.outbox, 0, -1)
            time, meta, nodes, joins, results, errors, inputs, channel, feedback, outbox = pipe.execute()
        if not meta:
            raise RunNotFoundError(run.id)
        state = state_of(meta, nodes, joins)
        emissions = [Emission(from_text(item.decode())) for item in outbox]
        state.outbox = {item.command: item for item in emissions}
        values, ttls = self._channel(channel, time[0] * 1000 + time[1] // 1000)
        codec = self._values.codec
        return Snapshot(
            state,
            self._unpacked(results, "result of task"),
            {
                node.decode(): decode_exception(json.loads(text), allow_pickle=codec.allows_pickle, codec=codec)
                for node, text in errors.items()
            },
            values,
            self._unpacked(inputs, "input of"),
            [FeedbackRecord(**json.loads(text)) for text in feedback],
            ttls,
        )

    def restore(self, run: RunRef, snapshot: Snapshot, details: Mapping[str, str | int]) -> None:
        """Makes the new run ``run`` out of a snapshot; nothing of it is sent yet.

        Raises:
            SerializationError: the settings allow no format that can hold one of its values.
        """
        keys, state = self._keys.run(run.id), snapshot.state
        now = self._client.time()
        results, inputs, channel = packed_fields(self._values.held_by(run), snapshot)
        hashes: dict[str, Mapping[str, Any]] = {
            keys.nodes: {key: record_text(record, now[0] * 1000) for key, record in state.nodes.items()},
            keys.results: results,
            keys.inputs: inputs,
            keys.errors: {node: self._error(error) for node, error in snapshot.errors.items()},
            keys.channel: _with_deadlines(channel, snapshot.ttls, now[0] * 1000 + now[1] // 1000),
            keys.feedback: {record.id: json.dumps(asdict(record)) for record in snapshot.feedback},
        }
        over = state.status.is_terminal
        hashes[keys.joins] = joins_of(state)
        # There is no run before it has its own fields, so that all else need not be written in one step with them.
        for key, fields in hashes.items():
            self._put(key, fields)
        with self._client.pipeline(transaction=True) as pipe:
            started = {"started": now[0] * 1000 + now[1] // 1000, **({"finished": now[0] * 1000} if over else {})}
            pipe.hset(keys.meta, mapping={**details, **_meta(state), **started, "graph": run.graph})
            due = now[0] * 1000 + int(self._lifetimes.grace * 1000)
            if state.outbox:
                texts = {to_text(command): due + int(item.delay * 1000) for command, item in state.outbox.items()}
                put_scores(pipe, keys.outbox, texts)
            watched = [key for key, record in state.nodes.items() if record.state in _WATCHED]
            if watched and not over:
                put_scores(pipe, keys.watch, dict.fromkeys(watched, due))
            pipe.xadd(keys.events, {"event": "run_resumed", "resumed_from": str(details.get("resumed_from", ""))})
            if over:
                _tell_end(pipe, keys, state)
            for key in keys.all():
                pipe.expire(key, self._lifetimes.result_ttl if over else self._lifetimes.run_ttl)
            pipe.execute()
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zadd(self._keys.runs, {run.id: now[0]})
            if not over:
                pipe.zadd(self._keys.active, {run.id: due})
            pipe.execute()
        if over:
            self._holdings.release(run)

    def _put(self, key: str, fields: Mapping[str, Any]) -> None:
        """Writes a hash that nobody reads yet. It goes by itself if nothing comes of it."""
        with self._client.pipeline(transaction=False) as pipe:
            put_fields(pipe, key, fields)
            pipe.expire(key, self._lifetimes.run_ttl)
            pipe.execute()

    def taken(self, run: RunRef, path: str, steps: int) -> None:
        """Notes where a checkpoint of the run is."""
        keys = self._keys.run(run.id)
        with self._client.pipeline(transaction=True) as pipe:
            pipe.rpush(keys.checkpoints, path)
            pipe.xadd(keys.events, {"event": "checkpoint_taken", "path": path, "count": steps}, maxlen=MAX_EVENTS)
            for key in (keys.checkpoints, keys.events):
                pipe.expire(key, self._lifetimes.run_ttl)
            pipe.execute()

    def paths(self, run: RunRef) -> list[str]:
        """Where the run's checkpoints are, the oldest first."""
        return [path.decode() for path in self._client.lrange(self._keys.run(run.id).checkpoints, 0, -1)]

    def _unpacked(self, fields: Mapping[bytes, bytes], what: str) -> dict[str, Any]:
        return {
            name.decode(): self._values.unpack(field, f"{what} '{name.decode()}'") for name, field in fields.items()
        }

    def _error(self, error: BaseException) -> str:
        codec = self._values.codec
        return json.dumps(encode_exception(error, allow_pickle=codec.allows_pickle, codec=codec))

    def _channel(self, fields: Mapping[bytes, bytes], now: int) -> tuple[dict[str, Any], dict[str, float]]:
        """The values that are live, and the seconds that are left of those which were given a ttl; see lua/live.lua."""
        live: dict[bytes, bytes] = {}
        ttls: dict[str, float] = {}
        for name, field in fields.items():
            if not field.startswith(DEADLINE):
                live[name] = field
                continue
            deadline, _, rest = field[1:].partition(b"|")
            if int(deadline) > now:
                live[name] = rest
                ttls[name.decode()] = (int(deadline) - now) / 1000
        return self._unpacked(live, "channel key"), ttls


def packed_fields(
    values: ValueStore, snapshot: Snapshot
) -> tuple[dict[str, bytes], dict[str, bytes], dict[str, bytes]]:
    """A snapshot's results, inputs and channel values as fields; what is large of them is stored.

    Raises SerializationError: the settings allow no format that can hold one of them.
    """
    return (
        {name: values.pack(value, f"result of task '{name}'") for name, value in snapshot.results.items()},
        {name: values.pack(value, f"input of '{name}'") for name, value in snapshot.inputs.items()},
        {key: values.pack_entry(value, f"channel key '{key}'") for key, value in snapshot.channel.items()},
    )


def _with_deadlines(fields: dict[str, bytes], ttls: Mapping[str, float], now: int) -> dict[str, bytes]:
    return fields | {
        key: DEADLINE + b"%d|" % (now + max(1, int(left * 1000))) + fields[key] for key, left in ttls.items()
    }


def state_of(meta: Mapping[bytes, bytes], nodes: Mapping[bytes, bytes], joins: Mapping[bytes, bytes]) -> RunState:
    def number(field: bytes) -> int:
        return int(meta.get(field, 0))

    def name(field: bytes) -> str | None:
        return meta[field].decode() if meta.get(field) else None

    state = RunState(
        status=RunStatus(meta[b"status"].decode()),
        reason=meta.get(b"reason", b"").decode(),
        outstanding=number(b"outstanding"),
        max_steps=number(b"max_steps") or None,
        steps=number(b"steps"),
        ended=number(b"ended"),
        nodes={key.decode(): _record(text.decode()) for key, text in nodes.items()},
        last_node=name(b"last_node"),
        failed_node=name(b"failed_node"),
        first=RunRef("", name(b"graph") or "").first,
    )
    found = {key.decode(): value for key, value in joins.items()}
    for key, value in found.items():
        if key.startswith(_JUMP):
            state.jumps[key.removeprefix(_JUMP)] = tuple(json.loads(value))
        elif key.startswith(_COUNT):
            state.counts[key.removeprefix(_COUNT)] = int(value)
        elif not key.endswith(_LIVE):
            state.arrivals[key] = (int(value), int(found.get(key + _LIVE, 0)))
    return state


def joins_of(state: RunState) -> dict[str, str | int]:
    fields: dict[str, str | int] = {f"{_COUNT}{key}": count for key, count in state.counts.items()}
    for key, (arrived, live) in state.arrivals.items():
        fields |= {key: arrived, f"{key}{_LIVE}": live}
    return fields | {f"{_JUMP}{group}": json.dumps(targets) for group, targets in state.jumps.items()}


def _meta(state: RunState) -> dict[str, str | int]:
    fields: dict[str, str | int] = {
        "status": state.status.value,
        "reason": state.reason,
        "outstanding": state.outstanding,
        "steps": state.steps,
        "ended": state.ended,
        **counts_of(state),
    }
    named = {"max_steps": state.max_steps, "last_node": state.last_node, "failed_node": state.failed_node}
    return fields | {name: value for name, value in named.items() if value is not None}


def _record(text: str) -> NodeRecord:
    state, attempt, worker, _, _, losses, retries, cycle, graph = text.split("|")
    holder = worker if state == NodeState.RUNNING else ""
    return NodeRecord(NodeState(state), int(attempt), int(losses), int(retries), int(cycle), graph, holder)


def record_text(record: NodeRecord, since: int) -> str:
    rest = [record.losses, record.retries, record.cycle, record.graph]
    return "|".join(str(field) for field in [record.state.value, record.attempt, record.worker, since, 0, *rest])


def _tell_end(pipe: Any, keys: RunKeys, state: RunState) -> None:
    end = {"event": f"run_{state.status}", "reason": state.reason}
    pipe.xadd(keys.events, end)
    pipe.xadd(keys.end, end)
