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
| P:{run}:end                 | stream | its last event, and what is told to all who wait for nothing but that     |
| P:{run}:blobs               | set    | what the run needs besides its own graph: values' blobs, "+" added graph  |
| P:{run}:logs                | stream | result_ttl after its last line; trimmed to some 10,000: what nodes logged |
| P:{run}:restored            | stream | a minute; rung when a blob was put back that the run's workers miss       |
| P:blob:DIGEST               | string | run_ttl and up to ten minutes, renewed whenever a submit or a result      |
|                             |        | refers to it, unless that was seen less than those minutes ago, and by    |
|                             |        | the monitor while a run goes on; of a value: result_ttl after the end of  |
|                             |        | the last run that holds it                                                |
| P:holders:{P:blob:DIGEST}   | set    | as long as the value's blob, in its slot: the runs that hold it, "RUN~3"  |
| P:{run}:checkpoints         | list   | paths of the run's checkpoints, the oldest first                          |
| P:{run}:watch               | zset   | activation -> ms at which the monitor looks at it; deleted at the end     |
| P:checkpoint:NAME           | string | run_ttl after it was taken                                                |
| P:wake:HUB                  | stream | a minute; wakes a client's blocked read when it is to read more streams   |
| P:runs                      | zset   | permanent: run -> when it was started, s; outdated entries are dropped    |
| P:active                    | zset   | permanent: run that goes on -> ms at which the monitor looks at it        |
| P:{workers}:beats           | zset   | a day after the last beat, as the next: worker -> ms of its last beat     |
| P:{workers}:leases          | hash   | worker -> what it is and which tasks it holds, as JSON                    |
| P:{workers}:declared        | zset   | worker -> ms at which it was declared dead, until it beats again          |
| P:{workers}:received        | hash   | queue -> how many messages of it workers have received; and              |
|                             |        | "\\0content:KIND" -> how much content they read and stored               |
| P:{workers}:ticks           | hash   | when a monitor looked last, and until when it declares nobody dead, ms    |
| P:{workers}:monitor         | string | the monitor's lease                                                       |
| P:{workers}:bell            | stream | rung when a worker is known to be dead; wakes the monitors                |
| P:{metrics}:totals          | hash   | run_ttl after the last scrape, as the next: what was counted, as JSON -> n |
| P:{metrics}:runs            | hash   | run -> how far its events are counted, as JSON                            |
| P:{metrics}:turns           | zset   | run that has events to come -> when they were counted last, s             |
| P:{metrics}:ended           | zset   | result_ttl: run that ended -> when that was counted, s                    |
"""

from __future__ import annotations

import re
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
    watch: str
    blobs: str

    @property
    def restored(self) -> str:
        return self.meta.removesuffix("meta") + "restored"

    def joins_of(self, retry: str) -> str:
        """The joins that a retry prepares, until they take the place of the run's in one step."""
        return f"{self.joins}:{retry}"

    @property
    def logs(self) -> str:
        return self.meta.removesuffix("meta") + "logs"

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
            self.watch,
            self.blobs,
        )


@dataclass(frozen=True, slots=True)
class WorkforceKeys:
    """What is known of all workers together. They share a hash tag of their own."""

    beats: str
    leases: str
    declared: str
    received: str
    ticks: str
    monitor: str
    bell: str


@dataclass(frozen=True, slots=True)
class MetricsKeys:
    """What was counted of all runs, for Prometheus. They share a hash tag of their own."""

    totals: str
    runs: str
    turns: str
    ended: str


def lock_keys(channel: str, key: str) -> tuple[str, str]:
    """The lock of a key of the run whose channel is at ``channel``, and the list by which its waiters are woken."""
    return f"{channel}:lock:{key}", f"{channel}:free:{key}"


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys under one prefix."""

    prefix: str

    @property
    def prefix_pattern(self) -> str:
        """The prefix for the MATCH of a SCAN."""
        return re.sub(r"([*?\[\]\\\\])", r"\\\1", self.prefix)

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
            "watch",
            "blobs",
        )
        return RunKeys(*(f"{base}:{name}" for name in names))

    def blob(self, digest: str) -> str:
        return f"{self.prefix}:blob:{digest}"

    def holders(self, digest: str) -> str:
        """Who holds a value's blob. The whole key of the blob is the hash tag, so both are in one slot."""
        return f"{self.prefix}:holders:{{{self.blob(digest)}}}"

    def duration(self, kind: str) -> str:
        """How long a function takes."""
        return f"{self.prefix}:took:{kind}"

    def checkpoint(self, name: str) -> str:
        return f"{self.prefix}:checkpoint:{name}"

    def wake(self, hub: str) -> str:
        return f"{self.prefix}:wake:{hub}"

    @property
    def probe(self) -> str:
        """Never exists: what would push to it finds out whether the server lets itself be written to."""
        return f"{self.prefix}:probe"

    @property
    def workers(self) -> WorkforceKeys:
        base = f"{self.prefix}:{{workers}}"
        names = ("beats", "leases", "declared", "received", "ticks", "monitor", "bell")
        return WorkforceKeys(*(f"{base}:{name}" for name in names))

    @property
    def metrics(self) -> MetricsKeys:
        base = f"{self.prefix}:{{metrics}}"
        return MetricsKeys(*(f"{base}:{name}" for name in ("totals", "runs", "turns", "ended")))

    @property
    def runs(self) -> str:
        return f"{self.prefix}:runs"

    @property
    def active(self) -> str:
        return f"{self.prefix}:active"
