"""Runs in Redis: the atomic, fenced commit and the outbox."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from graflow_celery.codec.exceptions import decode_exception
from graflow_celery.core.activation import node_of
from graflow_celery.core.commands import Command, from_text, to_text
from graflow_celery.core.state import Applied, Transition
from graflow_celery.errors import BlobMissingError, GraflowError, RunNotFoundError
from graflow_celery.ports import (
    NOTHING,
    Answer,
    Asked,
    Attempt,
    Begun,
    Change,
    FeedbackRecord,
    Forms,
    Late,
    NodeOutcome,
    NodeReport,
    Outcome,
    RunRef,
    Step,
)
from graflow_celery.redis_backend import steps
from graflow_celery.redis_backend.client import Client, Scripts
from graflow_celery.redis_backend.events import MAX_EVENTS
from graflow_celery.redis_backend.holdings import Holdings
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.lifetimes import Lifetimes
from graflow_celery.redis_backend.plea import WAIT
from graflow_celery.redis_backend.renewing import RENEWED, renew
from graflow_celery.redis_backend.slices import scores
from graflow_celery.redis_backend.values import ValueStore
from graflow_celery.redis_backend.wire import error_text, report_of, soonest_timer

SLICE = 500
#: Seconds after which the monitor looks at a run at the latest.
LOOK = 10.0

logger = logging.getLogger(__name__)


class RedisRunStore:
    """See :class:`graflow_celery.ports.SteppingStore`. ``events``: whether they are written."""

    def __init__(
        self,
        client: Client,
        scripts: Scripts,
        keys: Keys,
        values: ValueStore,
        lifetimes: Lifetimes,
        holdings: Holdings,
        events: bool = True,
    ) -> None:
        self._client = client
        self._scripts = scripts
        self._keys = keys
        self._values = values
        self._lifetimes = lifetimes
        self._holdings = holdings
        self._events = events
        #: Seconds from the last look at what is late until the next one is worth while, as far as it was known then.
        self.next_look: float | None = None

    def create(
        self,
        run: RunRef,
        transition: Transition,
        details: Mapping[str, str | int],
        channel: Mapping[str, Any] | None = None,
    ) -> Applied:
        """Makes the run, its channel, and commits its first transition in one step; stale if a run of that id is there.

        One round trip. If the store turns out to lack the run's graph, ``content`` relies on nothing any more.

        Raises:
            SerializationError: the settings allow no format that can hold a value of the channel.
        """
        values = self._values.held_by(run)
        made = steps.packed(values, transition, Outcome(), more={"create": {**details, "graph": run.graph}})
        made.parts["channel"] = [
            part
            for key, value in (channel or {}).items()
            for part in (key, values.pack_entry(value, f"channel key '{key}'"))
        ]
        keys, run_ttl = self._keys, self._lifetimes.run_ttl
        args, _ = steps.arguments([Change(transition, made)], self._lifetimes, self._events)
        look = [run.id, int(min(self._lifetimes.grace, soonest_timer(transition.emissions)) * 1000)]

        def queued(pipe: Any) -> None:
            self._scripts.queue(pipe, "hurry", [keys.active], look)
            self._scripts.queue(pipe, "advance", keys.run(run.id).all(), args)
            self._scripts.queue(pipe, "register", [keys.runs], [run.id, run_ttl])
            # Once more: a monitor that looked before there was a run has let go of it.
            self._scripts.queue(pipe, "hurry", [keys.active], look)
            pipe.expire(keys.blob(run.hash), run_ttl)

        _, reply, _, _, has_graph = self._scripts.together(self._client, queued)
        if not has_graph:
            self._values.content.seen.forget()
        applied = steps.applied(run, transition, reply[0])
        return self._followed(run, applied, reply[0]) if applied.status.is_terminal else applied

    def begin(self, attempt: Attempt, scopes: Sequence[str], names: Sequence[str]) -> Begun | None:
        [begun] = self.advance(attempt.run, [Asked(attempt, tuple(scopes), tuple(names))])
        if isinstance(begun, GraflowError):
            raise begun
        return cast(Begun | None, begun)

    def commit(self, run: RunRef, transition: Transition, outcome: Outcome | None = None) -> Applied:
        [applied] = self.advance(run, [self.change(run, transition, outcome or Outcome())])
        return cast(Applied, applied)

    def change(
        self,
        run: RunRef,
        transition: Transition,
        outcome: Outcome,
        holder: str | None = None,
        forms: Forms | None = None,
    ) -> Change:
        more = None if holder is None else {"holder": holder}
        return Change(transition, steps.packed(self._values.held_by(run), transition, outcome, forms, more))

    def value(self, change: Change) -> Any:
        [field] = change.kept.parts["value"]
        return self._unpack(change.transition.node or "", field)

    def advance(self, run: RunRef, taken: Sequence[Step]) -> list[Answer]:
        args, names = steps.arguments(taken, self._lifetimes, self._events)
        reply = self._scripts["advance"](keys=self._keys.run(run.id).all(), args=args, client=self._client)
        found = list(steps.answers(run, taken, names, reply, self._values))
        for answer, raw in zip(found, reply, strict=False):
            if isinstance(answer, Applied):
                self._followed(run, answer, raw)
        return found

    def _followed(self, run: RunRef, applied: Applied, reply: Sequence[Any]) -> Applied:
        """Sees to what lies outside of the run's own keys."""
        if applied.stale:
            return applied
        if applied.status.is_terminal:
            if reply[-1]:
                self._holdings.release(run)
            self._client.zrem(self._keys.active, run.id)
        elif (soonest := soonest_timer(applied.emissions)) < LOOK:
            self.hurry(run, soonest)
        return applied

    def outcomes(self, run: RunRef, nodes: Sequence[str]) -> list[NodeOutcome]:
        reports = self.reports(run, nodes)
        failed = [node for node, report in zip(nodes, reports, strict=True) if report and report.state != "succeeded"]
        found = self._hmget(self._keys.run(run.id).errors, [node_of(node) for node in failed])
        errors = dict(zip(failed, found, strict=True))
        return [
            NodeOutcome(report.state, report.attempt, error_text(errors.get(node))) if report else NodeOutcome(None)
            for node, report in zip(nodes, reports, strict=True)
        ]

    def reports(self, run: RunRef, nodes: Sequence[str]) -> list[NodeReport | None]:
        """What the store has of each node; None for one that did not begin yet."""
        return [report_of(field) for field in self._hmget(self._keys.run(run.id).nodes, nodes)]

    def records(self, run: RunRef) -> dict[str, NodeReport]:
        """Every activation that has a record, by key."""
        found = self._client.hscan_iter(self._keys.run(run.id).nodes, count=SLICE)
        return {key.decode(): report for key, field in found if (report := report_of(field)) is not None}

    def schedule(self, run: RunRef) -> tuple[list[tuple[Command, float]], dict[str, float]]:
        """The commands of the outbox and when each is due, and when the monitor looks at activations at the latest.

        Times are in seconds since the epoch.
        """
        keys = self._keys.run(run.id)
        outbox, watch = scores(self._client, keys.outbox), scores(self._client, keys.watch)
        return (
            [(from_text(text.decode()), due / 1000) for text, due in outbox],
            {key.decode(): due / 1000 for key, due in watch},
        )

    def retries(self, run: RunRef, nodes: Sequence[str]) -> list[int]:
        """How many failures of each activation were followed by another attempt."""
        return [0 if report is None else report.retries for report in self.reports(run, nodes)]

    def results(self, run: RunRef, nodes: Sequence[str]) -> dict[str, Any]:
        found = zip(nodes, self._hmget(self._keys.run(run.id).results, nodes), strict=True)
        return {node: self._unpack(node, field) for node, field in found if field is not None}

    def all_results(self, run: RunRef) -> dict[str, Any]:
        """Every result that is there, by node: those of added tasks and of members of mapped tasks too."""
        found: dict[str, Any] = {}
        for name, field in self._client.hscan_iter(self._keys.run(run.id).results, count=SLICE):
            found[name.decode()] = self._unpack(name.decode(), field)
        return found

    def values(self, run: RunRef, names: Sequence[str]) -> dict[str, Any]:
        found = self.results(run, names)
        channel = self._keys.run(run.id).channel
        for name in names:
            if name in found:
                continue
            field = self._scripts["look"](keys=[channel], args=["get", name], client=self._client)
            if field is not None:
                found[name] = self._unpack(name, field)
        return found

    def jumps(self, run: RunRef, group: str) -> tuple[str, ...]:
        found = self._client.hget(self._keys.run(run.id).joins, f"\0jump:{group}")
        return () if found is None else tuple(json.loads(found))

    def put_inputs(self, run: RunRef, inputs: Mapping[str, Any]) -> None:
        key = self._keys.run(run.id).inputs
        values = self._values.held_by(run)
        packed = {node: values.pack(value, f"item for '{node}'") for node, value in inputs.items()}
        with self._client.pipeline(transaction=False) as pipe:
            if packed:
                pipe.hset(key, mapping=packed)
            pipe.expire(key, self._lifetimes.run_ttl)
            pipe.execute()

    def input(self, run: RunRef, node: str) -> Any:
        field = self._client.hget(self._keys.run(run.id).inputs, node)
        return NOTHING if field is None else self._values.unpack(field, f"input of '{node}'")

    def feedback(self, run: RunRef, ids: Sequence[str] | None = None) -> list[FeedbackRecord]:
        key = self._keys.run(run.id).feedback
        found = self._client.hvals(key) if ids is None else self._hmget(key, ids)
        return [FeedbackRecord(**json.loads(text)) for text in found if text is not None]

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

    def wish(self, run: RunRef) -> tuple[int, str, str, str]:
        """How often a run wants checkpoints, 0 for never; where to; the signature of that; what it says of a tracer."""
        names = ("checkpoint_every", "checkpoint_to", "checkpoint_tag", "tracing")
        every, *texts = self._client.hmget(self._keys.run(run.id).meta, *names)
        to, tag, tracing = ((text or b"").decode() for text in texts)
        return int(every or 0), to, tag, tracing

    def recent(self, count: int) -> list[str]:
        """The ids of the runs started last, the newest first."""
        return [name.decode() for name in self._client.zrevrange(self._keys.runs, 0, count - 1)]

    def active(self) -> list[str]:
        """The ids of the runs that go on, as far as is known, the oldest first."""
        return [name.decode() for name in self._client.zrange(self._keys.active, 0, -1)]

    def hurry(self, run: RunRef, seconds: float = 0.0) -> None:
        """Has the monitor look at a run in so many seconds, unless it does so earlier."""
        self._scripts["hurry"](keys=[self._keys.active], args=[run.id, int(seconds * 1000)], client=self._client)

    def late(self, *, sweep: bool = False) -> Iterator[Late]:
        """What is late of the runs that it is time to look at, claimed for the caller. Sets ``next_look``.

        Args:
            sweep: look at all runs that go on, and at everything of them that has not ended.
        """
        times = self._lifetimes
        grace, patience, renewed = (int(x * 1000) for x in (times.grace, times.patience, times.run_ttl * RENEWED))
        for names in self._to_look_at(sweep):
            with self._client.pipeline(transaction=False) as pipe:
                for name in names:
                    keys = self._keys.run(name)
                    self._scripts["claim"](
                        keys=[keys.outbox, keys.watch, keys.nodes, keys.meta],
                        args=[grace, patience, SLICE, int(sweep), renewed],
                        client=pipe,
                    )
                found = dict(zip(names, pipe.execute(), strict=True))
            self._put_back(found)
            for name, (_, graph, _, renews, commands, *rest) in found.items():
                if renews:
                    renew(self._client, self._keys, self._values.content, self._holdings, RunRef(name, graph.decode()))
                nodes = zip(rest[commands::2], rest[commands + 1 :: 2], strict=True)
                if rest:
                    yield Late(
                        RunRef(name, graph.decode()),
                        [from_text(item.decode()) for item in rest[:commands]],
                        {node.decode(): report_of(record or None) for node, record in nodes},
                    )

    def _to_look_at(self, sweep: bool) -> Iterator[list[str]]:
        seconds, micros = self._client.time()
        now = seconds * 1000 + micros // 1000
        found = self._client.zrangebyscore(self._keys.active, 0, "+inf" if sweep else now)
        for start in range(0, len(found), SLICE):
            yield [name.decode() for name in found[start : start + SLICE]]
        first = self._client.zrange(self._keys.active, 0, 0, withscores=True)
        self.next_look = max(0.0, (first[0][1] - now) / 1000) if first else None

    def _put_back(self, found: Mapping[str, Sequence[Any]]) -> None:
        """Says when each run is to be looked at again, and lets go of those that have ended."""
        seconds, micros = self._client.time()
        now = seconds * 1000 + micros // 1000
        over = [name for name, (status, *_) in found.items() if status not in (b"running", b"waiting")]
        # One that is not there may be about to be made, and holds what it begins with.
        for ended in [RunRef(name, found[name][1].decode()) for name in over if found[name][0]]:
            self._holdings.release(ended)
        scores = {
            name: now + min(int(LOOK * 1000), after if after >= 0 else int(LOOK * 1000))
            for name, (_, _, after, *_) in found.items()
            if name not in over
        }
        with self._client.pipeline(transaction=False) as pipe:
            if scores:
                pipe.zadd(self._keys.active, scores, xx=True)
            if over:
                pipe.zrem(self._keys.active, *over)
            pipe.execute()

    def ease(self, run: RunRef, nodes: Sequence[str], seconds: float) -> None:
        """Lets nodes that are well be looked at in so many seconds."""
        if nodes:
            now = self._client.time()[0]
            scores = dict.fromkeys(nodes, int((now + seconds) * 1000))
            self._client.zadd(self._keys.run(run.id).watch, scores, xx=True)

    def forget(self, run: RunRef, nodes: Sequence[str]) -> None:
        """Lets nodes be looked at no more."""
        if nodes:
            self._client.zrem(self._keys.run(run.id).watch, *nodes)

    def note(self, run: RunRef, event: str, **fields: str | int) -> None:
        """Writes down in the run's events what no transition of it tells."""
        self._client.xadd(self._keys.run(run.id).events, {"event": event, **fields}, maxlen=MAX_EVENTS, nomkstream=True)

    def begged(self, run: RunRef, error: BlobMissingError) -> bool:
        begged = self._values.content.plea.begged(run, error)
        if begged:
            self.hurry(run, WAIT)
        return begged

    def announce(self, run: RunRef, event: str, /, **fields: str) -> None:
        """Does what :meth:`note` does, and tells those who only wait for the run's end."""
        self.note(run, event, **fields)
        keys = self._keys.run(run.id)
        if self._client.exists(keys.meta):
            self._client.xadd(keys.end, {"event": event, **fields})
            self._client.expire(keys.end, self._lifetimes.run_ttl)

    def unsent(self, run: RunRef, within: float) -> list[Command]:
        """The commands of a run that are due in ``within`` seconds. They stay in the outbox."""
        seconds, micros = self._client.time()
        until = seconds * 1000 + micros // 1000 + int(within * 1000)
        found = self._client.zrangebyscore(self._keys.run(run.id).outbox, 0, until)
        return [from_text(item.decode()) for item in found]

    def _hmget(self, key: str, fields: Sequence[str]) -> list[bytes | None]:
        found: list[bytes | None] = []
        for start in range(0, len(fields), SLICE):
            found += self._client.hmget(key, fields[start : start + SLICE])
        return found

    def _unpack(self, name: str, field: bytes) -> Any:
        return self._values.unpack(field, f"value of '{name}'")
