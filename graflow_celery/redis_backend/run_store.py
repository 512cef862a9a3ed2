"""Runs in Redis: the atomic, fenced commit and the outbox."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graflow_celery.codec.exceptions import decode_exception, encode_exception
from graflow_celery.core.commands import Command, DispatchNode, OpenGroup, from_text, to_text
from graflow_celery.core.state import STALE, Applied, Emission, NodeState, RunStatus, Transition
from graflow_celery.errors import RunNotFoundError
from graflow_celery.ports import Attempt, Begun, NodeOutcome, Outcome, RunRef
from graflow_celery.redis_backend.client import Client, Scripts
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.values import ValueStore

SLICE = 500


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """``run_ttl`` and ``result_ttl`` in seconds, ``grace`` before an unsent command is due, in seconds."""

    run_ttl: int
    result_ttl: int
    grace: float


@dataclass(frozen=True, slots=True)
class NodeReport:
    """A node as the store has it. Times are seconds since the epoch by the server's clock, or 0."""

    state: NodeState
    attempt: int
    worker: str
    started: float
    duration: float
    losses: int


class RedisRunStore:
    """See :class:`graflow_celery.ports.RunStore`."""

    def __init__(self, client: Client, scripts: Scripts, keys: Keys, values: ValueStore, lifetimes: Lifetimes) -> None:
        self._client = client
        self._scripts = scripts
        self._keys = keys
        self._values = values
        self._lifetimes = lifetimes

    def create(self, run: RunRef, transition: Transition, details: Mapping[str, str | int]) -> Applied:
        """Makes the run and commits its first transition in one step; stale if a run of that id is there."""
        applied = self._commit(run, transition, b"", b"", create={**details, "graph": run.graph})
        if not applied.stale:
            now = self._client.time()[0]
            with self._client.pipeline(transaction=False) as pipe:
                pipe.zadd(self._keys.runs, {run.id: now})
                pipe.zadd(self._keys.active, {run.id: now})
                pipe.zremrangebyscore(self._keys.runs, 0, now - self._lifetimes.run_ttl)
                pipe.execute()
        return applied

    def begin(self, attempt: Attempt, names: Sequence[str]) -> Begun | None:
        keys = self._keys.run(attempt.run.id)
        reply = self._scripts["begin"](
            keys=[keys.meta, keys.nodes, keys.events, keys.results, keys.channel],
            args=[
                attempt.node,
                attempt.number,
                attempt.worker,
                int(attempt.redelivered),
                self._lifetimes.run_ttl,
                *names,
            ],
            client=self._client,
        )
        if reply[0] == 0:
            return None
        found = zip(names, reply[2:], strict=True)
        return Begun({name: self._unpack(name, field) for name, field in found if field is not None}, reply[1])

    def commit(self, run: RunRef, transition: Transition, outcome: Outcome | None = None) -> Applied:
        value = error = b""
        if outcome is not None and outcome.error is not None:
            codec = self._values.codec
            error = json.dumps(encode_exception(outcome.error, allow_pickle=codec.allows_pickle, codec=codec)).encode()
        elif outcome is not None and transition.becomes is NodeState.SUCCEEDED:
            value = self._values.pack(outcome.value, f"result of task '{transition.node}'")
        return self._commit(run, transition, value, error, outcome)

    def _commit(
        self,
        run: RunRef,
        transition: Transition,
        value: bytes,
        error: bytes,
        outcome: Outcome | None = None,
        create: Mapping[str, str | int] | None = None,
    ) -> Applied:
        known = {
            (emission.command, emission.expected): emission
            for emission in (
                *transition.emissions,
                *(either for arrival in transition.arrivals for either in (arrival.then, arrival.otherwise)),
            )
        }
        text = json.dumps(_wire(transition, outcome, create), separators=(",", ":"))
        times = self._lifetimes
        reply = self._scripts["commit"](
            keys=list(self._keys.run(run.id).all()),
            args=[text, value, error, int(times.grace * 1000), times.run_ttl, times.result_ttl],
            client=self._client,
        )
        if reply[0] == 0:
            return STALE
        status = RunStatus(reply[1].decode())
        if status.is_terminal:
            self._client.zrem(self._keys.active, run.id)
            return Applied((), status, transition.is_final)
        queued = zip(reply[2::2], reply[3::2], strict=True)
        emissions = tuple(known[from_text(text.decode()), bool(expected)] for text, expected in queued)
        return Applied(emissions, status, transition.is_final)

    def outcomes(self, run: RunRef, nodes: Sequence[str]) -> list[NodeOutcome]:
        reports = self.reports(run, nodes)
        failed = [node for node, report in zip(nodes, reports, strict=True) if report and report.state != "succeeded"]
        errors = dict(zip(failed, self._hmget(self._keys.run(run.id).errors, failed), strict=True))
        return [
            NodeOutcome(report.state, report.attempt, _error_text(errors.get(node))) if report else NodeOutcome(None)
            for node, report in zip(nodes, reports, strict=True)
        ]

    def reports(self, run: RunRef, nodes: Sequence[str]) -> list[NodeReport | None]:
        """What the store has of each node; None for one that did not begin yet."""
        return [_report(field) for field in self._hmget(self._keys.run(run.id).nodes, nodes)]

    def results(self, run: RunRef, nodes: Sequence[str]) -> dict[str, Any]:
        found = zip(nodes, self._hmget(self._keys.run(run.id).results, nodes), strict=True)
        return {node: self._unpack(node, field) for node, field in found if field is not None}

    def error(self, run: RunRef, node: str) -> BaseException | None:
        """The exception that a node ended with, rebuilt, its remote traceback as its cause."""
        field = self._client.hget(self._keys.run(run.id).errors, node)
        if field is None:
            return None
        codec = self._values.codec
        return decode_exception(json.loads(field), allow_pickle=codec.allows_pickle, codec=codec)

    def acknowledge(self, run: RunRef, commands: Iterable[Command]) -> None:
        texts = [to_text(command) for command in commands]
        if texts:
            self._client.zrem(self._keys.run(run.id).outbox, *texts)

    def details(self, run_id: str) -> dict[str, str]:
        """The run's own fields. Raises RunNotFoundError."""
        found = self._client.hgetall(self._keys.run(run_id).meta)
        if not found:
            raise RunNotFoundError(run_id)
        return {field.decode(): value.decode() for field, value in found.items()}

    def recent(self, count: int) -> list[str]:
        """The ids of the runs started last, the newest first."""
        return [name.decode() for name in self._client.zrevrange(self._keys.runs, 0, count - 1)]

    def due(self, limit: int) -> Iterator[tuple[RunRef, list[Command]]]:
        """Commands that nobody carried out in time, claimed for the caller, by run."""
        for name in self._client.zrange(self._keys.active, 0, -1):
            run_id = name.decode()
            keys = self._keys.run(run_id)
            graph, status = self._client.hmget(keys.meta, "graph", "status")
            if status != b"running":
                self._client.zrem(self._keys.active, run_id)
                continue
            claimed = self._scripts["claim"](
                keys=[keys.outbox], args=[int(self._lifetimes.grace * 1000), limit], client=self._client
            )
            if claimed:
                yield RunRef(run_id, graph.decode()), [from_text(item.decode()) for item in claimed]

    def _hmget(self, key: str, fields: Sequence[str]) -> list[bytes | None]:
        found: list[bytes | None] = []
        for start in range(0, len(fields), SLICE):
            found += self._client.hmget(key, fields[start : start + SLICE])
        return found

    def _unpack(self, name: str, field: bytes) -> Any:
        return self._values.unpack(field, f"value of '{name}'")


def _wire(transition: Transition, outcome: Outcome | None, create: Mapping[str, str | int] | None) -> dict[str, Any]:
    """A transition in the form that `lua/commit.lua` documents."""
    wire: dict[str, Any] = {
        "event": transition.event,
        "attempt": transition.attempt,
        "next": transition.next_attempt,
        "consumes": transition.consumes,
        "arrivals": [
            [item.key, item.needs, int(item.live), item.quorum, _emission(item.then), _emission(item.otherwise)]
            for item in transition.arrivals
        ],
        "emissions": [_emission(item) for item in transition.emissions],
        "reason": transition.reason,
    }
    if transition.node is not None:
        wire["node"] = transition.node
    if transition.becomes is not None:
        wire["becomes"] = transition.becomes.value
    if transition.acknowledges is not None:
        wire["ack"] = to_text(transition.acknowledges)
    if transition.ends is not None:
        wire["ends"] = transition.ends.value
    if outcome is not None:
        wire |= {"worker": outcome.worker, "duration": int(outcome.duration * 1000)}
    if create is not None:
        wire["create"] = dict(create)
    return wire


def _emission(emission: Emission) -> list[Any]:
    match emission.command:
        case DispatchNode(node, attempt):
            event = ["node_queued", node, attempt]
        case OpenGroup(group):
            event = ["group_opened", group, 0]
        case _:
            event = ["", "", 0]
    return [to_text(emission.command), emission.weight, int(emission.expected), *event]


def _report(field: bytes | None) -> NodeReport | None:
    if field is None:
        return None
    state, attempt, worker, started, duration, losses = field.decode().split("|")
    return NodeReport(
        NodeState(state), int(attempt), worker, int(started or 0) / 1000, int(duration) / 1000, int(losses)
    )


def _error_text(field: bytes | None) -> str | None:
    if field is None:
        return None
    record = json.loads(field)
    return f"{str(record['type']).rpartition('.')[2]}: {record['message']}"
