"""Every metric: its name as Prometheus has it, type, labels and meaning. Dashboard and docs are checked by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Metric:
    """``name`` as it is queried: that of a counter ends in ``_total``. Times are in seconds."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str

    @property
    def samples(self) -> tuple[str, ...]:
        """The names of its time series."""
        return (
            tuple(f"{self.name}_{part}" for part in ("bucket", "count", "sum")) if self.is_histogram else (self.name,)
        )

    @property
    def is_histogram(self) -> bool:
        return self.kind == "histogram"


#: Where the classes of a histogram end, in seconds.
BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
_NODE = ("workflow", "node")

RUNS_STARTED = Metric("graflow_runs_started_total", "counter", ("workflow",), "Runs that were started")
RUNS = Metric(
    "graflow_runs_total", "counter", ("workflow", "status"), "Runs that ended; one that is retried ends again"
)
NODES = Metric("graflow_nodes_total", "counter", (*_NODE, "state"), "Nodes that ended: succeeded, failed or skipped")
RETRIES = Metric("graflow_retries_total", "counter", _NODE, "Failures that were followed by another attempt")
LOST = Metric("graflow_attempts_lost_total", "counter", _NODE, "Attempts whose process or worker died or hung")
REPLACED = Metric(
    "graflow_attempts_replaced_total",
    "counter",
    _NODE,
    "Attempts that another one took over: lost, or given back by a worker that shut down, or their message got lost",
)
POISONED = Metric(
    "graflow_nodes_poisoned_total",
    "counter",
    _NODE,
    "Nodes that failed because they lost as many processes as they may",
)
DURATION = Metric("graflow_node_duration_seconds", "histogram", _NODE, "How long attempts ran, however they ended")
QUEUE_WAIT = Metric(
    "graflow_queue_wait_seconds", "histogram", ("workflow",), "From when a first attempt was queued until it began"
)
BARRIER_WAIT = Metric(
    "graflow_barrier_wait_seconds",
    "histogram",
    _NODE,
    "From the end of a member until the barrier of its group closed; the node is the group",
)
COUNTED = (RUNS_STARTED, RUNS, NODES, RETRIES, LOST, REPLACED, POISONED, DURATION, QUEUE_WAIT, BARRIER_WAIT)

UP = Metric("graflow_store_up", "gauge", (), "1 if the store answered; if not, what is below is missing")
ACTIVE = Metric(
    "graflow_runs_active", "gauge", ("workflow", "status"), "Runs that go on: running, or waiting for a person"
)
BACKLOG = Metric(
    "graflow_metrics_backlog_runs", "gauge", (), "Runs that have events which are not counted yet, at least"
)
BEAT_AGE = Metric("graflow_worker_heartbeat_age_seconds", "gauge", ("worker",), "Since a worker's last beat")
CONCURRENCY = Metric("graflow_worker_concurrency", "gauge", ("worker",), "How many tasks a worker runs at a time")
HELD = Metric(
    "graflow_worker_attempts", "gauge", ("worker", "state"), "Attempts that a worker has: running or received"
)
LEADER = Metric("graflow_monitor_leader", "gauge", ("monitor",), "1 for the monitor that leads")
TICK_AGE = Metric("graflow_monitor_tick_age_seconds", "gauge", (), "Since a monitor looked last at what is late")
DEPTH = Metric("graflow_queue_messages", "gauge", ("queue",), "Messages that wait in a queue of the broker")
CONSUMERS = Metric("graflow_queue_workers", "gauge", ("queue",), "Live workers that consume a queue")
RECEIVED = Metric("graflow_queue_received_total", "counter", ("queue",), "Messages of a queue that workers received")
READS = Metric(
    "graflow_content_reads_total",
    "counter",
    ("found",),
    "Graphs, functions and large values that workers read: found in memory, shared by their processes, or in the store",
)
BYTES = Metric(
    "graflow_content_bytes_total", "counter", ("direction",), "Bytes of them that workers fetched (in) and stored (out)"
)
DROPPED = Metric(
    "graflow_spans_dropped_total", "counter", (), "Spans that workers dropped: nobody took them, or too many waited"
)
READ = (
    UP,
    ACTIVE,
    BACKLOG,
    BEAT_AGE,
    CONCURRENCY,
    HELD,
    LEADER,
    TICK_AGE,
    DEPTH,
    CONSUMERS,
    RECEIVED,
    READS,
    BYTES,
    DROPPED,
)

CATALOGUE: tuple[Metric, ...] = (*COUNTED, *READ)
#: What stands for everything beyond the bound on the number of labels.
OTHER = "other"
