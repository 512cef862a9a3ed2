"""What ``graflow-celery doctor`` looks at of the workers, the monitors and the runs that go on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version

from graflow_celery.cli.findings import Finding
from graflow_celery.distributed import active_runs
from graflow_celery.errors import GraflowError
from graflow_celery.redis_backend.client import Client, Scripts
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.liveness import Liveness, WorkerLease
from graflow_celery.runs import Run
from graflow_celery.settings import Settings
from graflow_celery.terminal.wording import counted, duration

#: Runs that are looked at, the oldest first, and stalled ones that are told of.
LOOKED_AT, TOLD = 200, 5
#: What pools other than prefork cannot do, by the name that their leases have.
WEAK_POOLS = {
    "solo": "it takes control commands between two tasks alone, no task that runs can be ended, and one that holds the "
    "GIL silences its beat",
    "thread": "no task that runs can be ended, and one that holds the GIL silences its beat",
    "gevent": "a task that does not yield for heartbeat_timeout silences its beat, and counts as lost",
    "eventlet": "a task that does not yield for heartbeat_timeout silences its beat, and counts as lost",
}


def workforce(client: Client, settings: Settings, found: list[WorkerLease]) -> Iterator[Finding]:
    """Looks at the workers, which are added to ``found``, and at who leads the monitors."""
    liveness = Liveness(client, Scripts(client), Keys(settings.key_prefix), settings.heartbeat_timeout)
    found += liveness.workers()
    start = f"Start one: celery -A graflow_celery worker -Q {settings.queue}"
    if not found:
        yield Finding("workers", "fail", "none is alive", start)
    else:
        slots = sum(worker.concurrency for worker in found)
        yield Finding("workers", "ok", f"{counted(len(found), 'worker')}, {counted(slots, 'task')} at a time")
        if any(settings.queue in worker.queues for worker in found):
            yield Finding("default queue", "ok", f"'{settings.queue}' is consumed")
        else:
            yield Finding("default queue", "fail", f"no live worker consumes '{settings.queue}'", start)
        yield from _crew(found, settings)
    if found or liveness.expired():
        yield from _leases(found, liveness.expired(), settings)
    yield _monitor(liveness, found)


def runs(settings: Settings) -> Finding:
    """Whether the runs that go on do so."""
    going = active_runs(settings)
    stalled = [(run.id, reason) for run in going[:LOOKED_AT] for reason in _obstacles(run)]
    if not stalled:
        more = "" if len(going) <= LOOKED_AT else f"; the {LOOKED_AT} oldest were looked at"
        return Finding("runs", "ok", f"{counted(len(going), 'run')} going on, none stalled{more}")
    names = list(dict.fromkeys(name for name, _ in stalled))
    told = "; ".join(f"{name}: {reason}" for name, reason in stalled[:TOLD])
    more = f"; and {len(stalled) - TOLD:,} more" if len(stalled) > TOLD else ""
    text = f"{counted(len(names), 'run')} of {len(going):,} stalled: {told}{more}"
    return Finding("runs", "warn", text, f"See: graflow-celery explain {names[0]}")


def _obstacles(run: Run) -> list[str]:
    try:
        return [item.reason for item in run.explain(1).obstacles if not item.reason.startswith("no monitor")]
    except GraflowError as error:
        return [str(error)]


def _crew(workers: Sequence[WorkerLease], settings: Settings) -> Iterator[Finding]:
    """What not all workers can do."""
    other = sorted({worker.version for worker in workers} - {version("celery")})
    if other:
        text = f"workers run Celery {', '.join(other)}; here it is {version('celery')}"
        yield Finding("versions", "warn", text, "Install the same version everywhere.")
    for pool in sorted({worker.pool for worker in workers} & WEAK_POOLS.keys()):
        names = _names(worker for worker in workers if worker.pool == pool)
        text = f"{pool} ({names}): {WEAK_POOLS[pool]}"
        yield Finding("pool", "warn", text, "For tasks that compute: --pool prefork, which is the default.")
    deaf = [worker for worker in workers if not worker.control]
    if deaf:
        text = f"{_names(deaf)}: worker_enable_remote_control is off, so what is not wanted any more runs to its end"
        yield Finding("control", "warn", text, "Leave worker_enable_remote_control on.")
    open_ones = [worker for worker in workers if worker.accepts_pickle]
    if open_ones:
        text = f"{_names(open_ones)}: accept_content has pickle, so whoever can write to the broker can run code there"
        yield Finding("accept_content", "warn", text, "Leave pickle out if nothing else of the app needs it.")
    unwatched = [worker for worker in workers if not worker.watched]
    if unwatched:
        text = f"off for {_names(unwatched)}: its death is noticed after {settings.heartbeat_timeout:g} s, not at once"
        yield Finding(
            "death watch", "warn", text, "Set GRAFLOW_CELERY_DEATH_WATCH=true for the worker, and restart it."
        )
    else:
        yield Finding("death watch", "ok", "on: the death of a worker's process is reported at once")


def _leases(workers: Sequence[WorkerLease], expired: Sequence[WorkerLease], settings: Settings) -> Iterator[Finding]:
    late = [worker for worker in workers if worker.age > 2 * settings.heartbeat_interval]
    for worker in expired:
        yield Finding(
            "lease",
            "warn",
            f"{worker.name} (pid {worker.pid}) has not beaten for {duration(worker.age)}; the monitor is about to "
            f"replace the {counted(len(worker.held), 'task')} that it holds",
            "If it lives, look why its main process stands still; it goes on by itself when it beats again.",
        )
    for worker in late:
        yield Finding(
            "lease",
            "warn",
            f"{worker.name} (pid {worker.pid}) is late: its last beat was {duration(worker.age)} ago",
            f"Look at the load of its machine and the way to the server; at {settings.heartbeat_timeout:g} s it "
            f"counts as lost.",
        )
    if workers and not late:
        running = sum(item.running for worker in workers for item in worker.held)
        received = sum(len(worker.held) for worker in workers) - running
        oldest = duration(max(worker.age for worker in workers))
        text = f"all beat, the last {oldest} ago; {counted(running, 'task')} running, {received:,} received"
        yield Finding("leases", "ok", text)


def _monitor(liveness: Liveness, workers: Sequence[WorkerLease]) -> Finding:
    leader, ago = liveness.leader(), liveness.last_tick()
    if leader is None:
        text = "none leads: what gets lost is not replaced, and what was not sent is not sent again"
        return Finding("monitor", "warn", text, "Start a worker or: graflow-celery monitor")
    others = sum(worker.id != leader for worker in workers)
    looked = "" if ago is None else f", and looked {duration(max(0.0, ago))} ago"
    return Finding("monitor", "ok", f"{leader} leads{looked}; {counted(others, 'worker')} would take over")


def _names(workers: Iterator[WorkerLease] | Sequence[WorkerLease]) -> str:
    names = [worker.name for worker in workers]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
