"""The counts for Prometheus in Redis, and the events of all runs from where each is counted.

Whoever is scraped counts what is new, in one atomic step that nobody else's counting came before: several processes
may be scraped, and every event counts once. Nothing is written while nobody is scraped.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graflow_celery.redis_backend.blob_counts import MARK
from graflow_celery.redis_backend.client import Client, Scripts
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.lifetimes import Lifetimes

#: Runs that are found, or looked at, at a time.
RUNS = 500
#: Pages of runs that are looked through for new ones.
PAGES = 20
#: Events of a run that are read at a time.
EVENTS = 1000
#: Seconds by which a run may be registered later than others that were started after it.
SLACK = 2
_BOOKS = frozenset({"version", "since"})
_OVER = frozenset({"succeeded", "failed", "cancelled", "terminated"})

Entry = tuple[str, dict[str, str]]


@dataclass(frozen=True, slots=True)
class Totals:
    """What was counted so far. ``version``: how often; ``since``: up to when runs were found, 0 at first, in s."""

    version: str
    since: int
    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class News:
    """A run's events that are not counted: the next thousand at most, ``more`` if there are others.

    ``over``: it has ended, or is gone.
    """

    run: str
    workflow: str
    graph: str
    entries: list[Entry]
    over: bool
    more: bool


class Tally:
    """Reads what is to be counted, and keeps what was."""

    def __init__(self, client: Client, scripts: Scripts, keys: Keys, lifetimes: Lifetimes) -> None:
        self._client = client
        self._scripts = scripts
        self._keys = keys
        self._lifetimes = lifetimes

    def totals(self) -> Totals:
        found = {name.decode(): int(count) for name, count in self._client.hgetall(self._keys.metrics.totals).items()}
        counts = {name: count for name, count in found.items() if name not in _BOOKS}
        return Totals(str(found.get("version", 0)), found.get("since", 0), counts)

    def found(self, since: int) -> tuple[dict[str, None], int]:
        """Runs that are not known to the counts, in order, and up to when there are no others.

        At first: those that go on, and those that were started within the time for which an ended run can be read.
        """
        keys, first = self._keys, not since
        names: list[bytes] = []
        if first:
            since = int(self._client.time()[0]) - self._lifetimes.result_ttl
            names = self._client.zrange(keys.active, 0, RUNS - 1)
        fresh, reached = self._unknown(names), since
        for page in range(PAGES):
            pairs = self._client.zrangebyscore(
                keys.runs, since - SLACK, "+inf", start=page * RUNS, num=RUNS, withscores=True
            )
            fresh |= self._unknown([name for name, _ in pairs])
            reached = int(pairs[-1][1]) if pairs else reached
            if len(pairs) < RUNS or len(fresh) >= RUNS:
                break
        return fresh, reached

    def _unknown(self, names: Sequence[bytes]) -> dict[str, None]:
        known = self._client.hmget(self._keys.metrics.runs, names) if names else []
        return {name.decode(): None for name, progress in zip(names, known, strict=True) if progress is None}

    def turns(self) -> list[str]:
        """Known runs that may have news, those first that waited longest."""
        return [name.decode() for name in self._client.zrange(self._keys.metrics.turns, 0, RUNS - 1)]

    def news(self, after: Mapping[str, str]) -> list[News]:
        """What is new of runs. ``after``: the id of the last event that was counted of each, ``0-0`` for none."""
        with self._client.pipeline(transaction=False) as pipe:
            for run, entry in after.items():
                keys = self._keys.run(run)
                pipe.hmget(keys.meta, "status", "workflow", "graph")
                pipe.xrange(keys.events, f"({entry}", "+", count=EVENTS)
            replies = pipe.execute()
        found = []
        for run, meta, entries in zip(after, replies[::2], replies[1::2], strict=True):
            status, workflow, graph = ((field or b"").decode() for field in meta)
            more = len(entries) == EVENTS
            over = (not status or status in _OVER) and not more
            found.append(News(run, workflow, graph, [_entry(*one) for one in entries], over, more))
        return found

    def progress(self, runs: Sequence[str]) -> dict[str, Any]:
        found = self._client.hmget(self._keys.metrics.runs, runs) if runs else []
        return {run: json.loads(text) for run, text in zip(runs, found, strict=True) if text is not None}

    def lost(self, failed: Mapping[str, Sequence[str]]) -> set[tuple[str, str]]:
        """Those of the failed nodes, by run, whose error is that they lost as many processes as they may."""
        with self._client.pipeline(transaction=False) as pipe:
            for run, nodes in failed.items():
                pipe.hmget(self._keys.run(run).errors, nodes)
            replies = pipe.execute()
        pairs = [(run, node) for run, nodes in failed.items() for node in nodes]
        errors = [error for reply in replies for error in reply]
        return {pair for pair, error in zip(pairs, errors, strict=True) if error is not None and _is_loss(error)}

    def add(
        self, totals: Totals, counts: Mapping[str, int], progress: Mapping[str, Any], ended: Iterable[str], since: int
    ) -> bool:
        """Adds counts to the totals, and notes how far runs are counted, in one step.

        False, and nothing was done: somebody else has counted since ``totals`` was read.
        """
        keys, times = self._keys.metrics, self._lifetimes
        told = {
            "add": counts,
            "runs": {run: json.dumps(far, separators=(",", ":")) for run, far in progress.items()},
            "ended": list(ended),
            "since": since,
        }
        done = self._scripts["tally"](
            keys=[keys.totals, keys.runs, keys.turns, keys.ended],
            args=[totals.version, times.run_ttl, times.result_ttl, json.dumps(told, separators=(",", ":"))],
            client=self._client,
        )
        return bool(done)

    def active(self, most: int) -> list[tuple[str, str]]:
        """Workflow and status of runs that go on, of so many at the most."""
        names = [name.decode() for name in self._client.zrange(self._keys.active, 0, most - 1)]
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hmget(self._keys.run(name).meta, "workflow", "status")
            found = [tuple((field or b"").decode() for field in fields) for fields in pipe.execute()]
        return [(workflow, status) for workflow, status in found if status and status not in _OVER]

    def active_count(self) -> int:
        return int(self._client.zcard(self._keys.active))

    def received(self) -> tuple[dict[str, int], dict[str, int]]:
        """How many messages of each queue workers have received, and what they counted of content, by kind."""
        found = {name.decode(): int(count) for name, count in self._client.hgetall(self._keys.workers.received).items()}
        content = {name.removeprefix(MARK): count for name, count in found.items() if name.startswith(MARK)}
        return {name: count for name, count in found.items() if not name.startswith(MARK)}, content


def _entry(name: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    return name.decode(), {key.decode(): value.decode() for key, value in fields.items()}


def _is_loss(error: bytes) -> bool:
    return str(json.loads(error).get("type", "")).endswith("WorkerLostError")
