"""Which blobs no run refers to any more, and their removal: mark, sweep, and look again at each before it goes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from graflow_celery.errors import BlobMissingError, BlobRejectedError
from graflow_celery.ports import RunRef
from graflow_celery.redis_backend.client import Client, Scripts
from graflow_celery.redis_backend.content_store import ContentStore
from graflow_celery.redis_backend.holdings import Holdings, run_of
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.retrying import large_values

SLICE = 500


@dataclass(frozen=True, slots=True)
class Stored:
    """A blob: its size in bytes, and the seconds since it was uploaded or renewed."""

    name: str
    size: int
    age: float


@dataclass
class Cleaning:
    """What was found, and what was or would be removed.

    Attributes:
        runs: how many runs the store has, those that have ended included: a retry needs their blobs.
        kept, kept_bytes: blobs that a run refers to. ``young``: blobs that none does, uploaded or renewed lately.
        removed: those that are gone, or would be.
        incomplete: runs of whose graph a part is gone, and what.
        unreadable: runs whose graph cannot be read here, and why. Then nothing is removed: what they need is not known.
    """

    runs: int = 0
    kept: int = 0
    kept_bytes: int = 0
    young: int = 0
    young_bytes: int = 0
    removed: list[Stored] = field(default_factory=list)
    incomplete: dict[str, str] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def removed_bytes(self) -> int:
        return sum(blob.size for blob in self.removed)


class Garbage:
    """The blobs of one store."""

    def __init__(self, client: Client, scripts: Scripts, keys: Keys, content: ContentStore, holdings: Holdings) -> None:
        self._client = client
        self._scripts = scripts
        self._keys = keys
        self._content = content
        self._holdings = holdings

    def clean(self, older_than: float, dry_run: bool) -> Cleaning:
        """Removes the blobs that no run refers to and that were not uploaded or renewed for ``older_than`` seconds."""
        done = Cleaning()
        runs = set(self._runs())
        done.runs = len(runs)
        live = self._live(runs, done)
        dry_run = dry_run or bool(done.unreadable)
        for part in self._scanned(f"{self._keys.prefix_pattern}:blob:*"):
            names = [key.rpartition(":")[2] for key in part]
            self._sweep(names, live, runs, older_than, dry_run, done)
        return done

    def _runs(self) -> Iterator[str]:
        """The runs whose keys are there, whether they go on or not."""
        known = re.compile(re.escape(self._keys.prefix) + r":\{(.*)\}:meta")
        for part in self._scanned(f"{self._keys.prefix_pattern}:{{*}}:meta"):
            yield from (found[1] for key in part if (found := known.fullmatch(key)))

    def _scanned(self, pattern: str) -> Iterator[list[str]]:
        cursor = 0
        while True:
            cursor, keys = self._client.scan(cursor, match=pattern, count=SLICE)
            if keys:
                yield [key.decode() for key in keys]
            if not cursor:
                return

    def _live(self, runs: set[str], done: Cleaning) -> set[str]:
        """Every blob that a run refers to, as far as its graphs can be read."""
        live: set[str] = set()
        graphs: dict[str, set[str]] = {}
        for run_id in sorted(runs):
            graph = self._client.hget(self._keys.run(run_id).meta, "graph")
            if graph is None:  # it expired meanwhile
                continue
            held, large = self._holdings.of(run_id), large_values(self._client, self._scripts, self._keys.run(run_id))
            live.update(held.values, (item.name for item in large))
            for name in (RunRef(run_id, graph.decode()).hash, *held.graphs):
                graphs.setdefault(name, set()).add(run_id)
        for name, of in graphs.items():
            live.add(name)
            try:
                live.update(self._content.names_of(name))
            except BlobMissingError as error:
                done.incomplete |= dict.fromkeys(of, str(error))
            except BlobRejectedError as error:
                done.unreadable |= dict.fromkeys(of, str(error))
        return live

    def _sweep(
        self, names: list[str], live: set[str], runs: set[str], older_than: float, dry_run: bool, done: Cleaning
    ) -> None:
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.strlen(self._keys.blob(name))
                pipe.ttl(self._keys.blob(name))
                pipe.smembers(self._keys.holders(name))
            replies = pipe.execute()
        old: dict[Stored, list[str]] = {}
        for name, size, left, members in zip(names, replies[::3], replies[1::3], replies[2::3], strict=True):
            holders = [member.decode() for member in members]
            if left == -2:  # it expired meanwhile
                continue
            blob = Stored(name, size, self._content.ttl - left)
            if name in live or left < 0 or any(run_of(member) in runs for member in holders):
                done.kept += 1
                done.kept_bytes += size
            elif blob.age < older_than:
                done.young += 1
                done.young_bytes += size
            else:
                old[blob] = holders
        done.removed += old if dry_run else self._removed(old, older_than)

    def _removed(self, old: dict[Stored, list[str]], older_than: float) -> list[Stored]:
        """Those that could be removed. One that was renewed, or that a run has taken hold of meanwhile, stays."""
        if not old:
            return []

        def queued(pipe: Any) -> None:
            for blob, holders in old.items():
                keys = [self._keys.blob(blob.name), self._keys.holders(blob.name)]
                self._scripts.queue(pipe, "sweep", keys, [int(self._content.ttl - older_than), *holders])

        replies = self._scripts.together(self._client, queued)
        return [blob for blob, removed in zip(old, replies, strict=True) if removed]
