"""What runs hold of the content store: the blobs of their large values, and the graphs that they added.

A value's blob is held by every run that refers to it, and lives for ``result_ttl`` after the last of them ended. Runs
hold before they refer, and let go after they have ended; who dies in between leaves a blob that is kept for too long,
never one that is gone too early.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from graflow_celery.ports import RunRef
from graflow_celery.redis_backend.client import Client, Scripts
from graflow_celery.redis_backend.keys import Keys

SLICE = 500
_ADDED = b"+"


@dataclass(frozen=True, slots=True)
class Held:
    """The names of the blobs of a run's values, and the hashes of the graphs that it added."""

    values: tuple[str, ...] = ()
    graphs: tuple[str, ...] = ()


class Holdings:
    """Those of all runs. ``ttl`` and ``result_ttl`` in seconds."""

    def __init__(self, client: Client, scripts: Scripts, keys: Keys, ttl: int, result_ttl: int) -> None:
        self._client = client
        self._scripts = scripts
        self._keys = keys
        self._ttl = ttl
        self._result_ttl = result_ttl

    def add_graph(self, pipe: Any, run: RunRef, graph: str) -> None:
        """Has a pipeline note that a run needs a graph that it is about to add."""
        blobs = self._keys.run(run.id).blobs
        pipe.sadd(blobs, _ADDED + graph.encode())
        pipe.expire(blobs, self._ttl)

    def of(self, run_id: str) -> Held:
        values, graphs = [], []
        for name in self._client.sscan_iter(self._keys.run(run_id).blobs, count=SLICE):
            if name.startswith(_ADDED):
                graphs.append(name[1:].decode())
            else:
                values.append(name.decode())
        return Held(tuple(values), tuple(graphs))

    def hold(self, run: RunRef, names: Sequence[str]) -> list[str]:
        """Takes hold of values' blobs, which are renewed, and returns those that are not there."""
        absent: list[str] = []
        for part in _sliced(names):
            with self._client.pipeline(transaction=False) as pipe:
                queue_hold(pipe, self._keys, run, part, self._ttl)
                for name in part:
                    pipe.expire(self._keys.blob(name), self._ttl)
                there = pipe.execute()[-len(part) :]
            absent += [name for name, found in zip(part, there, strict=True) if not found]
        return absent

    def release(self, run: RunRef) -> None:
        """Lets a run that has ended go of its values' blobs: of what it has held since its last retry."""
        for part in _sliced(self.of(run.id).values):

            def queued(pipe: Any, part: Sequence[str] = part) -> None:
                for name in part:
                    keys = [self._keys.holders(name), self._keys.blob(name)]
                    self._scripts.queue(pipe, "release", keys, [holder(run), self._result_ttl])

            self._scripts.together(self._client, queued)


def queue_hold(pipe: Any, keys: Keys, run: RunRef, names: Sequence[str], ttl: int) -> None:
    """Has a pipeline say that a run holds values' blobs. Whatever is renewed or stored has to come after it."""
    blobs = keys.run(run.id).blobs
    pipe.sadd(blobs, *names)
    pipe.expire(blobs, ttl)
    for name in names:
        pipe.sadd(keys.holders(name), holder(run))
        pipe.expire(keys.holders(name), ttl)


def holder(run: RunRef) -> str:
    """The run as a holder. After a retry it is another one: who still ends the run from before lets go of nothing."""
    return f"{run.id}~{run.first}"


def run_of(holding: str) -> str:
    """The id of the run that a holder is."""
    return holding.rpartition("~")[0]


def _sliced(names: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(names)
    while part := list(islice(rest, SLICE)):
        yield part
