"""`python -m tests.bench.tracing`: 1,000 members that do nothing, untraced and traced by turns on the same workers.

The spans go to a collector in a process of its own that reads and forgets them. A time is that from the submit to the
run's end, as the store has it; the processor time is that of the worker's processes, until the last span has left. The
ratios are medians of those of neighbours.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from rich.console import Console
from rich.table import Table

from graflow_celery import WorkflowContext
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.testing import embedded_cluster
from graflow_celery.tracing import OpenTelemetryTracer
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
    sink = subprocess.Popen([sys.executable, "-c", SINK], stdout=subprocess.PIPE, text=True)
    assert sink.stdout is not None
    endpoint = f"http://127.0.0.1:{sink.stdout.readline().strip()}"
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = endpoint
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "PYTHONPATH": str(Path(__file__).parents[2])}
    plain, traced = fan_out(MEMBERS), fan_out(MEMBERS)
    traced.tracer = OpenTelemetryTracer()
    try:
        with embedded_cluster(env=variables) as cluster:
            pairs = [(measured(plain, cluster), measured(traced, cluster)) for _ in range(rounds + 1)]
    finally:
        sink.kill()
        sink.wait()
    table = Table("1,000 members", "untraced, s", "traced, s", "ratio", title=f"{rounds} rounds")
    for name, index in (("time", 0), ("processor time", 1)):
        found = [(before[index], after[index]) for before, after in pairs[1:]]
        off, on = (statistics.median(column) for column in zip(*found, strict=True))
        ratio = statistics.median(after / before for before, after in found)
        table.add_row(name, f"{off:.2f}", f"{on:.2f}", f"{ratio:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
