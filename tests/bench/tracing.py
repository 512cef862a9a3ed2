"""`python -m tests.bench.tracing`: what watching costs. 1,000 members that do nothing, three ways by turns in one run.

Off: without events (the setting ``events``), untraced. Events: as by default. OTel: traced, too, by the same workers.
The spans go to a collector in a process of its own that reads and forgets them. A time is that from the submit to the
run's end, as the store has it; the processor time is that of the worker's processes, until the last span has left. The
ratios are medians of those of one round. First: what an attempt's span costs by itself, in this process.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from rich.console import Console
from rich.table import Table

from graflow_celery import WorkflowContext
from graflow_celery.core.events import NodeSucceeded
from graflow_celery.core.state import Applied
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.ports import Attempt, Outcome, RunRef
from graflow_celery.testing import embedded_cluster
from graflow_celery.tracing import OpenTelemetryTracer, providers
from graflow_celery.tracing.following import Follower, Told
from tests.bench.speed.flows import fan_out

MEMBERS = 1000
#: Seconds in which spans go out.
SENT = 1.0
SINK = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_): pass
with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
    print(server.server_address[1], flush=True)
    server.serve_forever()
"""


def span_costs() -> tuple[float, float]:
    """Microseconds of this processor for an attempt's span, and to encode it: the least of some rounds of 1,000."""
    plan, run = fan_out(MEMBERS).plan(), RunRef("ab" * 8, "c" * 64)
    keeps: dict[str, Any] = {
        "max_queue_size": 100_000,
        "max_export_batch_size": 100_000,
        "schedule_delay_millis": 3_600_000,
    }
    kept = InMemorySpanExporter()
    provider, _ = providers.made(lambda: kept, "nowhere", **keeps)
    tracer = OpenTelemetryTracer(provider)
    follower = Follower(tracer, nothing, tracer.describe())
    applied, outcome = Applied(ended_node=True), Outcome(worker="worker1@host", duration=0.001)

    def attempt(node: str) -> None:
        span = follower.begin(Attempt(run, plan, node, 1, "worker1@host"))
        span.call(lambda: None)
        span.end(NodeSucceeded(node, 1), outcome, applied)

    def costs(work: Callable[[], object]) -> float:
        began = time.process_time()
        work()
        return (time.process_time() - began) / MEMBERS * 1e6

    def attempts() -> None:
        for number in range(MEMBERS):
            attempt(f"m{number}")

    made = min(costs(attempts) for _ in range(9))
    provider.force_flush()
    spans = kept.get_finished_spans()[:MEMBERS]
    return made, min(costs(lambda: encode_spans(spans).SerializeToString()) for _ in range(5))


def nothing(run: RunRef) -> Told:
    raise LookupError(run.id)


def measured(wf: WorkflowContext, cluster: EmbeddedCluster) -> tuple[float, float]:
    """How long a run takes, and how much of the worker's processors, in seconds."""
    before = busy(cluster)
    run = wf.submit(settings=cluster.settings)
    run.wait(300)
    threading.Event().wait(2 * SENT)
    return (run.finished_at or 0.0) - run.started_at, busy(cluster) - before


def busy(cluster: EmbeddedCluster) -> float:
    worker = psutil.Process(cluster.workers[0].process.pid)
    times = [process.cpu_times() for process in [worker, *worker.children(recursive=True)]]
    return float(sum(time.user + time.system for time in times))


def main(rounds: int) -> None:
    console = Console()
    console.print("an attempt's span: {:.0f} us to make it, {:.0f} us to encode it".format(*span_costs()))
    sink = subprocess.Popen([sys.executable, "-c", SINK], stdout=subprocess.PIPE, text=True)
    assert sink.stdout is not None
    endpoint = f"http://127.0.0.1:{sink.stdout.readline().strip()}"
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "PYTHONPATH": str(Path(__file__).parents[2])}
    plain, traced = fan_out(MEMBERS), fan_out(MEMBERS)
    traced.tracer = OpenTelemetryTracer()
    try:
        with embedded_cluster(env=env) as cluster, embedded_cluster(env=env, events="off") as silent:
            sides = [(plain, silent), (plain, cluster), (traced, cluster)]
            found = [in_turn(sides, round_) for round_ in range(rounds + 1)][1:]
    finally:
        sink.kill()
        sink.wait()
    console.print(table(found))


def in_turn(sides: Sequence[tuple[WorkflowContext, EmbeddedCluster]], round_: int) -> list[tuple[float, float]]:
    """One round: each side once, another one first each time. What was measured, in the order of the sides."""
    order = [(round_ + step) % len(sides) for step in range(len(sides))]
    measures = {side: measured(*sides[side]) for side in order}
    return [measures[side] for side in range(len(sides))]


def table(found: Sequence[Sequence[tuple[float, float]]]) -> Table:
    shown = Table(title=f"1,000 members, {len(found)} rounds")
    for heading in ("", "off, s", "events, s", "OTel, s", "events / off", "OTel / events", "OTel / off"):
        shown.add_column(heading, justify="right" if heading else "left")
    for name, index in (("time", 0), ("processor time", 1)):
        rows = [[side[index] for side in round_] for round_ in found]
        medians = [f"{statistics.median(column):.3f}" for column in zip(*rows, strict=True)]
        ratios = [statistics.median(row[over] / row[under] for row in rows) for over, under in ((1, 0), (2, 1), (2, 0))]
        shown.add_row(name, *medians, *(f"{ratio:.2f}" for ratio in ratios))
    return shown


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
