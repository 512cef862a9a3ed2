"""Every key of ours, its type, and how long it lives. Keys are made here and nowhere else.

Keys of a run share the hash tag ``{run id}``, so that a run lives in one slot of a Redis Cluster.

| key                         | type   | lives                                                                    |
| --------------------------- | ------ | ------------------------------------------------------------------------ |
| P:{run}:meta                | hash   | run_ttl after the last event; result_ttl after the end. So do the next    |
| P:{run}:nodes               | hash   | activation -> "state|attempt|worker|started ms|duration ms|losses|        |
|                             |        | retries|cycle|graph"                                                      |
| P:{run}:joins               | hash   | "key" -> arrived, "key\\0" -> live arrivals, "\\0n:name" -> a count,      |
|                             |        | "\\0jump:group" -> where to, as JSON                                      |
| P:{run}:outbox              | zset   | command -> ms at which it is due; deleted at the end                      |
| P:{run}:events              | stream | trimmed to some 100,000                                                   |
| P:{run}:results             | hash   | node -> value                                                             |
| P:{run}:errors              | hash   | node -> exception as JSON                                                 |
| P:{run}:inputs              | hash   | activation -> its item, or what the iteration before handed on             |
| P:{run}:feedback            | hash   | request id -> what was asked, and the answer, as JSON                     |
| P:{run}:channel             | hash   | key -> value, or "~" deadline in ms "|" value: see lua/live.lua           |
| P:{run}:channel:lock:KEY    | string | a lock's lease, renewed while it is held: the holder's token              |
| P:{run}:channel:free:KEY    | list   | a lock's lease: has an element when it was freed, for who waits           |
| P:{run}:end                 | stream | the run's last event alone, for those who wait for nothing else           |
| P:blob:DIGEST               | string | run_ttl, renewed whenever a submit or a result refers to it               |
| P:{run}:checkpoints         | list   | paths of the run's checkpoints, the oldest first                          |
| P:checkpoint:NAME           | string | run_ttl after it was taken                                                |
| P:worker:NAME               | string | heartbeat_timeout: the worker's lease                                     |
| P:monitor                   | string | the monitor's lease                                                       |
| P:wake:HUB                  | stream | a minute; wakes a client's blocked read when it is to read more streams   |
| P:workers, P:runs, P:active | zset   | permanent; entries are dropped when they are outdated                     |
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunKeys:
    """The keys of one run."""

    meta: str
    nodes: str
    joins: str
    outbox: str
    events: str
    results: str
    errors: str
    channel: str
    end: str
    inputs: str
    feedback: str
    checkpoints: str

    def all(self) -> tuple[str, ...]:
        return (
            self.meta,
            self.nodes,
            self.joins,
            self.outbox,
            self.events,
            self.results,
            self.errors,
            self.channel,
            self.end,
            self.inputs,
            self.feedback,
            self.checkpoints,
        )


def lock_keys(channel: str, key: str) -> tuple[str, str]:
    """The lock of a key of the run whose channel is at ``channel``, and the list by which its waiters are woken."""
    return f"{channel}:lock:{key}", f"{channel}:free:{key}"


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys under one prefix."""

    prefix: str

    def run(self, run_id: str) -> RunKeys:
        base = f"{self.prefix}:{{{run_id}}}"
        names = (
            "meta",
            "nodes",
            "joins",
            "outbox",
            "events",
            "results",
            "errors",
            "channel",
            "end",
            "inputs",
            "feedback",
            "checkpoints",
        )
        return RunKeys(*(f"{base}:{name}" for name in names))

    def blob(self, digest: str) -> str:
        return f"{self.prefix}:blob:{digest}"

    def checkpoint(self, name: str) -> str:
        return f"{self.prefix}:checkpoint:{name}"

    def worker(self, name: str) -> str:
        return f"{self.prefix}:worker:{name}"

    def wake(self, hub: str) -> str:
        return f"{self.prefix}:wake:{hub}"

    @property
    def monitor(self) -> str:
        return f"{self.prefix}:monitor"

    @property
    def workers(self) -> str:
        return f"{self.prefix}:workers"

    @property
    def runs(self) -> str:
        return f"{self.prefix}:runs"

    @property
    def active(self) -> str:
        return f"{self.prefix}:active"
