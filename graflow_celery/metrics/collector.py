"""What Prometheus asks at a scrape. All of it is read then: nothing runs between two scrapes."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import redis
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.errors import UnavailableError
from graflow_celery.metrics import catalogue
from graflow_celery.metrics.accounts import Accounts
from graflow_celery.metrics.catalogue import BUCKETS, CATALOGUE, COUNTED, OTHER, Metric
from graflow_celery.metrics.counting import SUM, Field
from graflow_celery.redis_backend.client import patience, short
from graflow_celery.redis_backend.liveness import name_of

#: Seconds for which an answer is given again, and for which a server that is away is waited for.
FRESH, WAIT = 1.0, 1.0
#: Runs whose state is looked at, and queues whose depth is, at a scrape.
RUNS, QUEUES = 1000, 50

logger = logging.getLogger(__name__)
Samples = Iterable[tuple[tuple[str, ...], float]]


class RunCollector(Collector):
    """Reads the store at a scrape, once a second at the most.

    Args:
        runtime: of the store.
        most: how many workflows, and pairs of workflow and node, have series of their own.
    """

    def __init__(self, runtime: Runtime, most: int) -> None:
        self._runtime = runtime
        self._accounts = Accounts(runtime, most)
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._families: list[Family] = []

    def describe(self) -> Iterable[Family]:
        """The names, so that registering reads nothing."""
        return [_family(metric) for metric in CATALOGUE]

    def collect(self) -> Iterable[Family]:
        with self._lock:
            if time.monotonic() - self._read_at >= FRESH:
                self._families = self._read()
                self._read_at = time.monotonic()
            return self._families

    def _read(self) -> list[Family]:
        try:
            with patience(WAIT):
                found = [*self._counted(), *self._workers(), *self._runs()]
        except (UnavailableError, redis.RedisError) as error:
            logger.warning("no metrics: %s", short(error))
            return [_filled(catalogue.UP, [((), 0.0)])]
        return [_filled(catalogue.UP, [((), 1.0)]), *found]

    def _counted(self) -> Iterator[Family]:
        counts, backlog = self._accounts.up_to_date()
        by_name: dict[str, dict[Field, int]] = {}
        for (name, *labels), count in counts.items():
            by_name.setdefault(name, {})[tuple(labels)] = count
        for metric in COUNTED:
            found = by_name.get(metric.name, {})
            yield _histogram(metric, found) if metric.is_histogram else _filled(metric, found.items())
        yield _filled(catalogue.BACKLOG, [((), backlog)])

    def _runs(self) -> Iterator[Family]:
        tally = self._accounts.tally
        found = tally.active(RUNS)
        most = [name for name, _ in Counter(workflow for workflow, _ in found).most_common(self._accounts.most)]
        counts = Counter((workflow if workflow in most else OTHER, status) for workflow, status in found)
        beyond = tally.active_count() - RUNS
        if beyond > 0:
            counts[OTHER, "running"] += beyond
        yield _filled(catalogue.ACTIVE, counts.items())

    def _workers(self) -> Iterator[Family]:
        liveness = self._runtime.liveness
        leases = liveness.living().values()
        held = {(lease.name, state): 0 for lease in leases for state in ("running", "received")}
        for name, item in ((lease.name, item) for lease in leases for item in lease.held):
            held[name, "running" if item.running else "received"] += item.count
        consumers = Counter(queue for lease in leases for queue in lease.queues)
        leader, tick = liveness.leader(), liveness.last_tick()
        yield _filled(catalogue.BEAT_AGE, [((lease.name,), lease.age) for lease in leases])
        yield _filled(catalogue.CONCURRENCY, [((lease.name,), lease.concurrency) for lease in leases])
        yield _filled(catalogue.HELD, held.items())
        yield _filled(catalogue.LEADER, [((name_of(leader),), 1.0)] if leader else [])
        yield _filled(catalogue.TICK_AGE, [((), tick)] if tick is not None else [])
        queues = sorted({*consumers, self._runtime.settings.queue})[:QUEUES]
        yield _filled(catalogue.DEPTH, self._depths(queues))
        yield _filled(catalogue.CONSUMERS, [((queue,), consumers[queue]) for queue in queues])
        received, content = self._accounts.tally.received()
        reads = {(kind,): content.get(kind, 0) for kind in ("memory", "shared", "store")}
        yield _filled(catalogue.READS, reads.items())
        yield _filled(catalogue.BYTES, [((way,), content.get(f"bytes_{way}", 0)) for way in ("in", "out")])
        yield _filled(catalogue.DROPPED, [((), content.get("spans_dropped", 0))])
        yield _filled(catalogue.RECEIVED, [((queue,), received[queue]) for queue in queues if queue in received])

    def _depths(self, queues: Sequence[str]) -> Iterator[tuple[Field, float]]:
        """How many messages wait in each. A broker that is away is asked once: it takes its time to be so."""
        for queue in queues:
            depth = self._runtime.depth(queue)
            if depth is None:
                return
            yield (queue,), depth


def _family(metric: Metric) -> Family:
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    made: Family = kinds[metric.kind](metric.name.removesuffix("_total"), metric.meaning, labels=metric.labels)
    return made


def _filled(metric: Metric, samples: Samples) -> Family:
    family = _family(metric)
    for labels, value in samples:
        family.add_metric(labels, value)  # type: ignore[attr-defined]  # each kind has it
    return family


def _histogram(metric: Metric, found: Mapping[Field, int]) -> Family:
    """From how many fell into each class, and the sum in ms."""
    family = _family(metric)
    classes = (*(f"{bound:g}" for bound in BUCKETS), "+Inf")
    for labels in sorted({field[:-1] for field in found}):
        below, buckets = 0, []
        for name in classes:
            below += found.get((*labels, name), 0)
            buckets.append((name, float(below)))
        family.add_metric(labels, buckets, found.get((*labels, SUM), 0) / 1000)  # type: ignore[attr-defined]  # a histogram
    return family
