"""A run in Redis that has ended, and the step by which it goes on."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from graflow_celery.core.commands import DispatchNode, OpenGroup, to_text
from graflow_celery.core.rerun import Rerun
from graflow_celery.core.state import Emission, NodeState, RunState
from graflow_celery.errors import RunNotFoundError
from graflow_celery.ports import FeedbackRecord, RunRef
from graflow_celery.redis_backend.client import Client, Scripts
from graflow_celery.redis_backend.events import MAX_EVENTS
from graflow_celery.redis_backend.keys import Keys, RunKeys
from graflow_celery.redis_backend.lifetimes import Lifetimes
from graflow_celery.redis_backend.progress import counts_of
from graflow_celery.redis_backend.slices import put_fields, put_scores, scanned, sliced
from graflow_celery.redis_backend.snapshots import joins_of, record_text, state_of
from graflow_celery.redis_backend.values import references

SLICE = 1000
#: Seconds for which something is kept that was prepared for a step that then was not taken.
PREPARED = 600


@dataclass(frozen=True, slots=True)
class Large:
    """A value that lies in the blob ``name``: a ``kind`` "result", "input" or "channel key", of the node or key."""

    kind: str
    key: str
    name: str


@dataclass(frozen=True)
class StoredRun:
    """A run as it was read. ``meta`` are its own fields, ``large`` its values that lie in blobs."""

    run: RunRef
    state: RunState
    meta: dict[bytes, bytes]
    feedback: tuple[FeedbackRecord, ...]
    large: tuple[Large, ...]

    def needed(self, made: Rerun) -> dict[str, str]:
        """The blobs that hold what a retry keeps, and what each is."""
        stale = {"result": made.stale_results, "input": made.stale_inputs}
        return {
            item.name: f"{item.kind} '{item.key}' of run {self.run.id}"
            for item in self.large
            if item.key not in stale.get(item.kind, ())
        }

    @property
    def timeout(self) -> float | None:
        found = self.meta.get(b"timeout")
        return None if found is None else float(found)


class RedisRetries:
    """Reads runs that have ended, and lets them go on. ``sign`` signs the reference to a run's graph."""

    def __init__(
        self, client: Client, scripts: Scripts, keys: Keys, lifetimes: Lifetimes, sign: Callable[[RunRef], RunRef]
    ) -> None:
        self._sign = sign
        self._client = client
        self._scripts = scripts
        self._keys = keys
        self._lifetimes = lifetimes

    def read(self, run_id: str) -> StoredRun:
        """The run as it is, if it has ended; :meth:`go_on` notices what has changed since. Raises RunNotFoundError."""
        keys = self._keys.run(run_id)
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hgetall(keys.meta)
            pipe.hvals(keys.feedback)
            meta, feedback = pipe.execute()
        if not meta:
            raise RunNotFoundError(run_id)
        nodes, joins = scanned(self._client, keys.nodes), scanned(self._client, keys.joins)
        return StoredRun(
            RunRef(run_id, meta[b"graph"].decode()),
            state_of(meta, nodes, joins),
            meta,
            tuple(FeedbackRecord(**json.loads(text)) for text in feedback),
            tuple(large_values(self._client, self._scripts, keys)),
        )

    def go_on(self, stored: StoredRun, made: Rerun, said: dict[str, str | int]) -> RunRef | None:
        """Lets the run go on from there, in one step; nothing of it is sent yet. None: it does already, or again.

        ``said`` is what the event of it says.
        """
        run = self._sign(stored.run.since(made.state.first))
        keys, token = self._keys.run(run.id), uuid.uuid4().hex
        self.note_active(run.id)  # before too: who dies right after the step leaves a run that the monitor knows
        joins = self._prepared(keys.joins_of(token), joins_of(made.state))
        done = False
        while not done:
            with self._client.pipeline(transaction=True) as pipe:
                pipe.watch(keys.meta)
                if (meta := pipe.hgetall(keys.meta)) != stored.meta:
                    done = meta.get(b"retried_by") == token.encode()  # its answer got lost on the way
                    break
                now = pipe.time()
                pipe.multi()
                self._change(pipe, keys, stored, made, now[0] * 1000 + now[1] // 1000)
                if joins:
                    pipe.rename(joins, keys.joins)
                pipe.hset(keys.meta, mapping={"graph": run.graph, "retried_by": token})
                pipe.xadd(keys.events, {"event": "run_retried", **said})
                self._tell_queued(pipe, keys, made.emissions)
                for key in keys.all():
                    pipe.expire(key, self._lifetimes.run_ttl)
                with contextlib.suppress(redis.WatchError):
                    pipe.execute()
                    done = True
        self.note_active(run.id)
        if not done and joins:
            self._client.unlink(joins)
        if done:
            self._note_uncounted(run.id)
        return run if done else None

    def _prepared(self, key: str, fields: Mapping[str, str | int]) -> str:
        """Writes the new joins beside the old ones, to take their place in the one step in which the run goes on.

        Returns the key; nothing if there are none.
        """
        with self._client.pipeline(transaction=False) as pipe:
            put_fields(pipe, key, fields)
            pipe.expire(key, PREPARED)
            pipe.execute()
        return key if fields else ""

    def _note_uncounted(self, run_id: str) -> None:
        """Has the metrics count a run whose end they may have counted; see `redis_backend.tally`."""
        turns = self._keys.metrics.turns
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zadd(turns, {run_id: 0})
            pipe.expire(turns, self._lifetimes.run_ttl)
            pipe.execute()

    def note_active(self, run_id: str) -> None:
        """Has the monitor look after a run."""
        now = self._client.time()[0]
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zadd(self._keys.runs, {run_id: now}, nx=True)
            pipe.zadd(self._keys.active, {run_id: int((now + self._lifetimes.grace) * 1000)}, nx=True)
            pipe.execute()

    def _change(self, pipe: Any, keys: RunKeys, stored: StoredRun, made: Rerun, now: int) -> None:
        old, state = stored.state, made.state
        changed = {key: record_text(item, now) for key, item in state.nodes.items() if old.nodes.get(key) != item}
        _drop(pipe, keys.nodes, made.undone)
        _drop(pipe, keys.results, made.stale_results)
        _drop(pipe, keys.errors, made.stale_results)
        _drop(pipe, keys.inputs, made.stale_inputs)
        _drop(pipe, keys.feedback, _stale_requests(old, stored.feedback, made))
        pipe.unlink(keys.joins, keys.outbox, keys.end, keys.watch)
        put_fields(pipe, keys.nodes, changed)
        grace = int(self._lifetimes.grace * 1000)
        put_scores(
            pipe,
            keys.outbox,
            {
                to_text(item.command): now + int(item.delay * 1000) + (0 if item.delay else grace)
                for item in made.emissions
            },
        )
        watched = [key for key, item in state.nodes.items() if item.state in (NodeState.QUEUED, NodeState.RUNNING)]
        if watched:
            put_scores(pipe, keys.watch, dict.fromkeys(watched, now + int(self._lifetimes.patience * 1000)))
        pipe.hdel(keys.meta, "reason", "finished", "failed_node", "last_node", "kept")
        pipe.hset(keys.meta, mapping=_meta(state))
        pipe.hincrby(keys.meta, "retries", 1)

    def _tell_queued(self, pipe: Any, keys: RunKeys, emissions: tuple[Emission, ...]) -> None:
        for item in emissions:
            command = item.command
            if isinstance(command, DispatchNode):
                event: dict[str, str | int] = {"event": "node_queued", "node": command.node, "attempt": command.attempt}
            elif isinstance(command, OpenGroup):
                event = {"event": "group_opened", "node": command.group, "attempt": 0}
                event |= {"count": item.members} if item.members else {}
            else:
                continue
            event |= {"delay": int(item.delay * 1000)} if item.delay else {}
            event |= {"graph": command.graph} if command.graph else {}
            pipe.xadd(keys.events, event, maxlen=MAX_EVENTS)


def large_values(client: Client, scripts: Scripts, keys: RunKeys) -> Iterator[Large]:
    """A run's values that lie in blobs. Only references and lists come from the server."""
    for kind, name in (("result", keys.results), ("input", keys.inputs), ("channel key", keys.channel)):
        cursor: bytes = b"0"
        while True:
            cursor, *found = scripts["referring"](keys=[name], args=[cursor, SLICE], client=client)
            for key, field in zip(found[::2], found[1::2], strict=True):
                yield from (Large(kind, key.decode(), blob) for blob in references(field))
            if cursor == b"0":
                break


def _stale_requests(old: RunState, feedback: tuple[FeedbackRecord, ...], made: Rerun) -> list[str]:
    """What is asked anew: all that is open, and what was answered to a node that is run again from its start."""
    again = [record for record in feedback if record.node not in made.kept]
    kept = {node for node in made.again if old.nodes[node].state is not NodeState.SUCCEEDED}
    return [record.id for record in again if record.response is None or record.node not in kept]


def _drop(pipe: Any, key: str, fields: Any) -> None:
    for part in sliced(fields):
        pipe.hdel(key, *part)


def _meta(state: RunState) -> dict[str, str | int]:
    fields: dict[str, str | int] = {
        "status": state.status.value,
        "outstanding": state.outstanding,
        "steps": state.steps,
        "ended": state.ended,
        **counts_of(state),
    }
    return fields if state.last_node is None else {**fields, "last_node": state.last_node}
