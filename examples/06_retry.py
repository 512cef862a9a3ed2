"""Retry: a task that fails is tried again, after waits that grow. Here a server is busy at first.
Run it: graflow-celery run examples/06_retry.py --backend embedded"""

import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

from graflow_celery import RetryPolicy, TaskExecutionContext, task, workflow


class Busy(BaseHTTPRequestHandler):
    """Refuses two requests out of three."""

    requests = 0

    def do_GET(self) -> None:
        Busy.requests += 1
        self.send_response(503 if Busy.requests % 3 else 200)
        self.end_headers()
        self.wfile.write(__doc__.encode() if __doc__ else b"")


server = HTTPServer(("127.0.0.1", 0), Busy)
threading.Thread(target=server.serve_forever, daemon=True).start()


@task(inject_context=True, retry_policy=RetryPolicy(max_retries=4, initial_interval=0.1, backoff_factor=2, jitter=True))
def fetch(context: TaskExecutionContext, url: str) -> dict[str, object]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return {"text": answer.read().decode(), "retries": context.retry_count}


with workflow("retry") as wf:
    fetch(task_id="fetched", url=f"http://127.0.0.1:{server.server_port}/")
