"""How long code takes: a decaying geometric mean for each function, known to all processes.

Geometric, so that one call in a hundred that takes a thousand times as long says little of the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graflow_celery.redis_backend.client import Client
from graflow_celery.redis_backend.keys import Keys

#: The weight of the newest duration in the mean.
WEIGHT = 0.2
#: Seconds that a call counts for at the least.
SHORTEST = 1e-6
#: Seconds for which what was read counts, and for which a mean is kept in the store that nobody renews.
FRESH, KEPT = 5.0, 7 * 86_400
#: By how much a mean has changed that is told at once, as a factor; otherwise it is told after TOLD seconds.
CHANGED, TOLD = 1.5, 3600.0
#: Seconds after which it is asked again for what nobody had told anything of.
UNKNOWN = 0.25
#: Functions that are asked for at a time.
KINDS = 64
#: Functions that are remembered in a process.
MOST = 4096


@dataclass(slots=True)
class _Known:
    mean: float | None = None
    read: float = -FRESH
    told: float | None = None
    told_at: float = 0.0


class Durations:
    """What this process has seen, and what others told. Means are in seconds; a kind is the hash of a function."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys
        self._known: dict[str, _Known] = {}

    def expected(self, kind: str) -> float | None:
        """What this process knows by now."""
        known = self._known.get(kind)
        return None if known is None else known.mean

    def took(self, kind: str, seconds: float) -> None:
        """Counts one call."""
        known, seconds = self._of(kind), max(seconds, SHORTEST)
        known.mean = seconds if known.mean is None else known.mean * (seconds / known.mean) ** WEIGHT

    def learn(self, kinds: Iterable[str]) -> Mapping[str, float | None]:
        """What is known of some kinds; the store is asked for those that were not asked for lately."""
        distinct = list(dict.fromkeys(kinds))
        old = self._old(distinct)
        if old:
            self._read(old, self._client.mget([self._keys.duration(kind) for kind in old]))
        return {kind: self._of(kind).mean for kind in distinct}

    def ask(self, pipe: Any, kinds: Iterable[str]) -> Callable[[Iterator[Any]], None]:
        """Has a pipeline ask for what :meth:`learn` will be asked for; returns what takes the replies out of it."""
        old = self._old(list(dict.fromkeys(kinds))[:KINDS])
        if old:
            pipe.mget([self._keys.duration(kind) for kind in old])
        return lambda replies: self._read(old, next(replies)) if old else None

    def _old(self, kinds: Iterable[str]) -> list[str]:
        """Those of which more may be known by now."""
        now = time.monotonic()
        known = {kind: self._of(kind) for kind in kinds}
        return [kind for kind, it in known.items() if now - it.read > (UNKNOWN if it.mean is None else FRESH)]

    def _read(self, kinds: Iterable[str], texts: Iterable[bytes | None]) -> None:
        now = time.monotonic()
        for kind, text in zip(kinds, texts, strict=True):
            known = self._of(kind)
            known.read = now
            if text is not None:
                known.mean = known.told = float(text)

    def tell(self, kinds: Iterable[str]) -> None:
        """Tells others of those of some kinds that have changed."""
        now = time.monotonic()
        changed = {kind: known for kind in kinds if _has_changed(known := self._of(kind), now)}
        if not changed:
            return
        with self._client.pipeline(transaction=False) as pipe:
            for kind, known in changed.items():
                pipe.set(self._keys.duration(kind), repr(known.mean), ex=KEPT)
                known.told, known.told_at, known.read = known.mean, now, now
            pipe.execute()

    def _of(self, kind: str) -> _Known:
        known = self._known.get(kind)
        if known is None:
            while len(self._known) >= MOST:
                self._known.pop(next(iter(self._known)))
            known = self._known[kind] = _Known()
        return known


def _has_changed(known: _Known, now: float) -> bool:
    if known.mean is None:
        return False
    if known.told is None or now - known.told_at > TOLD:
        return True
    less, more = sorted((known.mean + 0.001, known.told + 0.001))
    return more / less > CHANGED
