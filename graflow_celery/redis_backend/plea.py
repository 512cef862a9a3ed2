"""A blob is missing that a run needs: whoever waits for the run is asked to put it back, and is waited for.

The run's streams say which blobs are missing. A client that submitted the run and waits for it has them, uploads them
again and rings; who asked sleeps on the server until then. If nobody rings in time, the error says why it is likely to
be gone, as far as the server tells.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from graflow_celery.errors import BlobMissingError, UnavailableError
from graflow_celery.ports import RunRef
from graflow_celery.redis_backend.client import Client
from graflow_celery.redis_backend.events import parse
from graflow_celery.redis_backend.keys import Keys

#: The event by which a run's clients are asked: ``names`` of blobs, parted by commas, ``what`` they are, ``node``.
MISSING = "blobs_missing"
#: Seconds for which somebody who misses a blob waits for it to be put back.
WAIT = 5.0
#: Seconds after which what the monitor asked for is asked for anew.
FORGOTTEN = 60.0
#: Seconds by which a server's uptime may be too short: it counts whole ones.
CLOCK = 1
#: Seconds that the stream lives by which those who wait are woken, and how many entries it keeps.
BELL_TTL, BELLS = 60, 100

_asking: ContextVar[tuple[RunRef, str] | None] = ContextVar("graflow_asking", default=None)


@contextmanager
def asking(run: RunRef, node: str) -> Iterator[None]:
    """For the time of the block, what is missing in this thread or task is asked for, on behalf of a node."""
    token = _asking.set((run, node))
    try:
        yield
    finally:
        _asking.reset(token)


class Plea:
    """Asks for what is missing. ``ttl``: seconds for which the streams of a run live."""

    def __init__(self, client: Client, keys: Keys, ttl: int) -> None:
        self._client = client
        self._keys = keys
        self._ttl = ttl
        self._begged: dict[str, float] = {}

    def answered(self, names: Sequence[str], what: str) -> dict[str, bytes]:
        """Blobs that were missing, once somebody has put them back. Nobody is asked outside of :func:`asking`.

        Raises:
            BlobMissingError: one of them is not there after WAIT seconds.
        """
        about = _asking.get()
        if about is None:
            raise BlobMissingError(names[0], what, cause=self.cause())
        run, node = about
        bell = self._keys.run(run.id).restored
        last = self.tell(run, node, names, what)
        deadline = time.monotonic() + WAIT
        left = WAIT
        while True:
            if left > 0:
                heard = parse(self._client.xread({bell: last}, block=max(1, int(left * 1000)))).get(bell)
                last = heard[-1][0] if heard else last
            there = dict(zip(names, self._client.mget([self._keys.blob(name) for name in names]), strict=True))
            lacking = [name for name, data in there.items() if data is None]
            if not lacking:
                return there
            if left <= 0:
                raise BlobMissingError(lacking[0], what, node, self.cause(run))
            left = deadline - time.monotonic()

    def begged(self, run: RunRef, error: BlobMissingError) -> bool:
        """Asks for what the monitor misses, which does not wait. False: it was asked for, and nobody came in time."""
        now = time.monotonic()
        self._begged = {run_id: since for run_id, since in self._begged.items() if now - since < FORGOTTEN}
        since = self._begged.setdefault(run.id, now)
        if since == now:
            self.tell(run, error.node, [error.digest], error.what)
        return now - since < WAIT

    def tell(self, run: RunRef, node: str, names: Sequence[str], what: str) -> str:
        """Says in the run's streams what is missing; returns after which ring of the bell to wait for the next."""
        keys = self._keys.run(run.id)
        said = {"event": MISSING, "node": node, "names": ",".join(names), "what": what}
        with self._client.pipeline(transaction=False) as pipe:
            pipe.xrevrange(keys.restored, count=1)
            pipe.xadd(keys.events, said, maxlen=100_000, approximate=True, nomkstream=True)
            pipe.xadd(keys.end, said)
            pipe.expire(keys.end, self._ttl)
            newest = pipe.execute()[0]
        return newest[0][0].decode() if newest else "0-0"

    def ring(self, run: RunRef) -> None:
        """Wakes those who wait for a blob of the run."""
        bell = self._keys.run(run.id).restored
        with self._client.pipeline(transaction=False) as pipe:
            pipe.xadd(bell, {"event": "restored"}, maxlen=BELLS)
            pipe.expire(bell, BELL_TTL)
            pipe.execute()

    def cause(self, run: RunRef | None = None) -> str:
        """Why a blob is likely to be gone, with what to do about it, as far as the server tells."""
        try:
            with self._client.pipeline(transaction=False) as pipe:
                pipe.info()
                pipe.time()
                if run is not None:
                    pipe.hget(self._keys.run(run.id).meta, "started")
                info, now, *started = pipe.execute()
        except UnavailableError:
            return ""
        return _cause(info, now[0] - int(started[0]) / 1000 if any(started) else None)


def _cause(info: Mapping[str, object], age: float | None) -> str:
    """``age``: of the run, in seconds."""
    evicted, policy = int(str(info.get("evicted_keys", 0))), str(info.get("maxmemory_policy", ""))
    uptime = int(str(info.get("uptime_in_seconds", 0)))
    if evicted and policy != "noeviction":
        return (
            f"the server evicts what it has no room for (maxmemory-policy {policy}, {evicted:,} keys evicted). "
            f"Set maxmemory-policy to noeviction"
        )
    if age is not None and uptime + CLOCK < age:
        return (
            f"the server was restarted {uptime} s ago, after the run had begun, and came back without it. "
            f"Turn its persistence on (appendonly yes)"
        )
    return ""
