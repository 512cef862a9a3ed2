"""Workers' leases and the monitor's, stamped by the server's clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from graflow_celery.redis_backend.client import Client, Scripts
from graflow_celery.redis_backend.keys import Keys

FORGET_AFTER = 3600.0


@dataclass(frozen=True, slots=True)
class WorkerLease:
    """A live worker: its name, the queues it consumes, its process id and how many tasks it runs at a time."""

    name: str
    queues: tuple[str, ...]
    pid: int
    concurrency: int
    pool: str = ""
    version: str = ""


class Liveness:
    """Who is alive, as far as the leases tell."""

    def __init__(self, client: Client, scripts: Scripts, keys: Keys, timeout: float) -> None:
        self._client = client
        self._scripts = scripts
        self._keys = keys
        self._lease = int(timeout * 1000)

    def beat(self, worker: WorkerLease) -> None:
        """Renews a worker's lease: one round trip."""
        self._scripts["beat"](
            keys=[self._keys.worker(worker.name), self._keys.workers],
            args=[worker.name, json.dumps(asdict(worker)), self._lease],
            client=self._client,
        )

    def leave(self, name: str) -> None:
        """Ends a worker's lease now: it is shutting down."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.delete(self._keys.worker(name))
            pipe.zrem(self._keys.workers, name)
            pipe.execute()

    def workers(self) -> list[WorkerLease]:
        """The workers whose lease has not run out, by name."""
        names = [name.decode() for name in self._client.zrange(self._keys.workers, 0, -1)]
        if not names:
            return []
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.get(self._keys.worker(name))
            pipe.zremrangebyscore(self._keys.workers, 0, (self._client.time()[0] - FORGET_AFTER) * 1000)
            found = pipe.execute()[:-1]
        leases = [json.loads(text) for text in found if text is not None]
        return sorted((WorkerLease(**{**lease, "queues": tuple(lease["queues"])}) for lease in leases), key=_name)

    def unserved(self, queues: Sequence[str]) -> list[str]:
        """Those of ``queues`` that no live worker consumes."""
        served = {queue for worker in self.workers() for queue in worker.queues}
        return [queue for queue in queues if queue not in served]

    def lead(self, name: str, seconds: float) -> bool:
        """Takes or keeps the monitor's lease for ``seconds``; False if another one holds it."""
        if self._client.set(self._keys.monitor, name, nx=True, px=int(seconds * 1000)):
            return True
        if self.leader() != name:
            return False
        return bool(self._client.pexpire(self._keys.monitor, int(seconds * 1000)))

    def leader(self) -> str | None:
        holder = self._client.get(self._keys.monitor)
        return None if holder is None else str(holder.decode())


def _name(lease: WorkerLease) -> str:
    return lease.name
