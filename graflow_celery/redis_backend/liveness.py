"""Workers' leases and the monitor's, stamped by the server's clock."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import redis

from graflow_celery.ports import Death, Held, RunRef
from graflow_celery.redis_backend.client import Client, Scripts
from graflow_celery.redis_backend.keys import Keys

#: Beats after which a lease is written again that has not changed: a server that was restarted may have lost the last.
RETELL = 9
#: Deaths that a monitor takes on at a time.
AT_ONCE = 50
#: Seconds for which the number of processes is taken to be what it was.
COUNTED = 5.0
#: Workers that are looked at to tell which queues are consumed, and how many processes there are.
SAMPLE = 20
#: What stands between a worker's name and the mark of one of its starts.
START_MARK = "#"


@dataclass(frozen=True, slots=True)
class WorkerLease:
    """A worker as its last beat told of it.

    Attributes:
        name: Celery's node name. ``boot``: marks one start of it: a worker that is started again is another one.
        queues: those that it consumes. ``pid``: of its main process. ``concurrency``: how many tasks it runs at a time.
        held: the attempts that it runs, or has received and not begun.
        age: seconds since the beat, when the lease was read.
        control: it takes Celery's control commands. ``watched``: a small process reports its death at once.
        accepts_pickle: Celery unpickles messages for it: its app's owner allows that.
    """

    name: str
    queues: tuple[str, ...]
    pid: int
    concurrency: int
    pool: str = ""
    version: str = ""
    boot: str = ""
    held: tuple[Held, ...] = ()
    age: float = 0.0
    control: bool = True
    watched: bool = False
    accepts_pickle: bool = False

    @property
    def id(self) -> str:
        return worker_id(self.name, self.boot)

    def text(self) -> str:
        """The lease as JSON."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name not in ("held", "age")}
        held = [
            (item.run.id, item.run.graph, item.node, item.attempt, item.added, item.pid, item.running, item.members)
            for item in self.held
        ]
        return json.dumps({**fields, "held": held}, separators=(",", ":"))

    @classmethod
    def of(cls, text: bytes | str, age: float = 0.0) -> WorkerLease:
        fields: dict[str, Any] = json.loads(text)
        held = tuple(
            Held(RunRef(run, graph), node, attempt, added, pid, running, None if members is None else tuple(members))
            for run, graph, node, attempt, added, pid, running, members in fields.pop("held")
        )
        return cls(**{**fields, "queues": tuple(fields["queues"])}, held=held, age=age)


def worker_id(name: str, boot: str) -> str:
    """How records and leases name one start of a worker."""
    return f"{name}{START_MARK}{boot}"


def name_of(worker: str) -> str:
    """Celery's node name of the worker that a record names."""
    return worker.partition(START_MARK)[0]


@dataclass(frozen=True, slots=True)
class Beat:
    """What the store says to a beat: whether the worker had been declared dead, and whether a monitor leads."""

    declared: bool
    has_leader: bool


class Liveness:
    """Who is alive, as far as the leases tell. See :class:`graflow_celery.engine.monitor.Workforce`.

    ``timeout``: seconds for which a beat counts.
    """

    def __init__(self, client: Client, scripts: Scripts, keys: Keys, timeout: float) -> None:
        self._client = client
        self._scripts = scripts
        self._keys = keys.workers
        self._lease = int(timeout * 1000)
        #: Seconds from the last election until somebody can be declared dead, as far as it was known then.
        self.next_expiry: float | None = None
        self._mercy = False
        self._processes = (-COUNTED, 0)
        self._told: dict[str, tuple[str, int]] = {}

    def beat(self, worker: WorkerLease, received: Mapping[str, int] | None = None) -> Beat:
        """Renews a worker's lease: one round trip. ``received``: messages by queue since the beat before.

        A lease that is as it was is written again with every tenth beat only, or if the store does not have it.
        """
        text, counts = worker.text(), [item for pair in (received or {}).items() for item in pair]
        told, beats = self._told.get(worker.id, ("", 0))
        again = text == told and beats < RETELL
        declared, leader, unknown = self._beat(worker.id, "" if again else text, counts)
        if unknown:
            again = False
            self._beat(worker.id, text, [])
        self._told[worker.id] = (text, beats + 1 if again else 0)
        return Beat(bool(declared), bool(leader))

    def _beat(self, worker: str, text: str, counts: Sequence[str | int]) -> tuple[int, int, int]:
        keys = self._keys
        found = self._scripts["beat"](
            keys=[keys.beats, keys.leases, keys.declared, keys.received, keys.monitor],
            args=[worker, text, *counts],
            client=self._client,
        )
        return cast(tuple[int, int, int], tuple(found))

    def leave(self, worker: str) -> None:
        """Ends a worker's lease now: it has shut down, and holds nothing any more."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.zrem(self._keys.beats, worker)
            pipe.hdel(self._keys.leases, worker)
            pipe.execute()

    def report(self, worker: str) -> bool:
        """Says that a worker's main process has ended. False if it had left, or is buried."""
        keys = self._keys
        return bool(
            self._scripts["report"](keys=[keys.beats, keys.monitor, keys.bell], args=[worker], client=self._client)
        )

    def report_command(self, worker: str) -> tuple[str | int, ...]:
        """The command with which :meth:`report` is said, for whoever has no client."""
        keys = self._keys
        return ("EVAL", str(self._scripts["report"].script), 3, keys.beats, keys.monitor, keys.bell, worker)

    def workers(self) -> list[WorkerLease]:
        """The workers whose lease has not run out, by name."""
        return self._alive(self._everybody())

    def _alive(self, leases: Mapping[str, WorkerLease]) -> list[WorkerLease]:
        alive = [lease for lease in leases.values() if lease.age * 1000 < self._lease]
        return sorted(alive, key=lambda lease: lease.id)

    def expired(self) -> list[WorkerLease]:
        """The workers whose lease has run out and whose death no monitor has seen to yet, by name."""
        late = [lease for lease in self._everybody().values() if lease.age * 1000 >= self._lease]
        return sorted(late, key=lambda lease: lease.id)

    def last_tick(self) -> float | None:
        """Seconds since a monitor looked last; None if none ever did."""
        at = self._client.hget(self._keys.ticks, "at")
        return None if at is None else self.now() - float(at) / 1000

    def living(self, workers: Iterable[str] | None = None) -> dict[str, WorkerLease]:
        """Those of ``workers``, or all, that are not known to be dead; a lease that has run out proves nothing yet."""
        if workers is None:
            return self._everybody()
        names = sorted(set(workers))
        if not names:
            return {}
        with self._client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.hmget(self._keys.leases, names)
            for name in names:
                pipe.zscore(self._keys.beats, name)
            time, leases, *beats = pipe.execute()
        now = time[0] * 1000 + time[1] / 1000
        return {
            name: WorkerLease.of(lease, (now - beat) / 1000)
            for name, lease, beat in zip(names, leases, beats, strict=True)
            if lease is not None and beat is not None and beat > 0
        }

    def _everybody(self) -> dict[str, WorkerLease]:
        with self._client.pipeline(transaction=False) as pipe:
            self._ask(pipe)
            return _leases(iter(pipe.execute()))

    def _ask(self, pipe: Any) -> None:
        pipe.time()
        pipe.zrangebyscore(self._keys.beats, "(0", "+inf", withscores=True)
        pipe.hgetall(self._keys.leases)

    def unserved(self, queues: Sequence[str]) -> list[str]:
        """Those of ``queues`` that no live worker consumes."""
        with self._client.pipeline(transaction=False) as pipe:
            unserved = self.ask(pipe, queues)
            return unserved(iter(pipe.execute()))

    def ask(self, pipe: Any, queues: Sequence[str]) -> Callable[[Iterator[Any]], list[str]]:
        """Has a pipeline ask for what :meth:`unserved` tells; returns what takes the replies out of the pipeline's.

        A few workers are looked at. Where there are more, and these do not consume all of the queues, all are.
        """
        keys, glance = self._keys, self._scripts["glance"].script
        pipe.eval(glance, 2, keys.beats, keys.leases, self._lease, SAMPLE)

        def unserved(replies: Iterator[Any]) -> list[str]:
            leases, workers, *found = next(replies)
            each = 2 * sum(found[::2]) / len(found) if found else 0
            self._processes = (time.monotonic(), round(workers * each))
            served = {queue for text in found[1::2] for queue in json.loads(text)}
            if leases > SAMPLE and not served.issuperset(queues):
                served = {queue for worker in self.workers() for queue in worker.queues}
            return [queue for queue in queues if queue not in served]

        return unserved

    def received(self, queues: Sequence[str]) -> dict[str, int]:
        """How many messages of each queue workers have received, as of their last beats."""
        found = self._client.hmget(self._keys.received, queues) if queues else []
        return {queue: int(count or 0) for queue, count in zip(queues, found, strict=True)}

    def processes(self) -> int:
        """How many tasks the workers run at the same time, roughly: some of them are looked at, now and then."""
        if time.monotonic() - self._processes[0] > COUNTED:
            self.unserved([])
        return self._processes[1]

    def oldest_beat(self) -> float | None:
        """Seconds since the oldest of the last beats of those that are not known to be dead; None if there is none."""
        now = self.now() * 1000
        found = self._client.zrangebyscore(self._keys.beats, "(0", "+inf", 0, 1, withscores=True)
        return (now - found[0][1]) / 1000 if found else None

    def lead(self, name: str, seconds: float) -> bool:
        """Takes or keeps the monitor's lease for ``seconds``; False if another one holds it."""
        keys = self._keys
        others = (keys.beats, keys.leases, keys.declared, keys.received, keys.bell)
        leads, *facts = self._scripts["lead"](
            keys=[keys.monitor, keys.ticks, *others], args=[name, int(seconds * 1000), self._lease], client=self._client
        )
        if leads:
            mercy, wait = facts
            self._mercy = mercy > 0
            self.next_expiry = None if wait < 0 else wait / 1000
        return bool(leads)

    def resign(self, name: str) -> None:
        """Gives the monitor's lease up, if ``name`` holds it."""
        if self.leader() == name:
            self._client.delete(self._keys.monitor)

    def leader(self) -> str | None:
        holder = self._client.get(self._keys.monitor)
        return None if holder is None else str(holder.decode())

    def deaths(self) -> list[Death]:
        """The workers that are dead now, until they are buried. Nobody is just after the store was away.

        Then, the leases that ran out meanwhile prove nothing; a death that was reported counts all the same.
        """
        if self.next_expiry is None or self.next_expiry > 0:
            return []
        keys = self._keys
        merciful = self._mercy or self._restarted()
        now, *found = self._scripts["declare"](
            keys=[keys.beats, keys.leases, keys.declared],
            args=["" if merciful else self._lease, AT_ONCE],
            client=self._client,
        )
        if merciful and not found:
            self.next_expiry = None  # no reason to look again at once
        triples = zip(found[::3], found[1::3], found[2::3], strict=True)
        return [_death(now, worker.decode(), score.decode(), text) for worker, score, text in triples]

    def bury(self, death: Death) -> bool:
        """Forgets a worker that was declared dead. False if it has beaten since."""
        keys = self._keys
        args = [death.worker, death.mark]
        return bool(self._scripts["bury"](keys=[keys.beats, keys.leases], args=args, client=self._client))

    def _restarted(self) -> bool:
        """Whether the server was started within the time of a lease."""
        try:
            return float(self._client.info("server").get("uptime_in_seconds", 0)) * 1000 < self._lease + 1000
        except redis.ResponseError:  # a user who may not ask
            return False

    def now(self) -> float:
        """Seconds since the epoch by the server's clock."""
        seconds, micros = self._client.time()
        return float(seconds + micros / 1_000_000)


def _leases(replies: Iterator[Any]) -> dict[str, WorkerLease]:
    time, beats, leases = (next(replies) for _ in range(3))
    now = time[0] * 1000 + time[1] / 1000
    return {
        worker.decode(): WorkerLease.of(leases[worker], (now - beat) / 1000)
        for worker, beat in beats
        if worker in leases
    }


def _death(now: int, worker: str, score: str, text: bytes) -> Death:
    beat = abs(float(score))
    lease = WorkerLease.of(text) if text else replace(_UNKNOWN, name=name_of(worker))
    return Death(worker, lease.name, lease.pid, (now - beat) / 1000, float(score) < 0, lease.held, score)


_UNKNOWN = WorkerLease("", (), 0, 0)
