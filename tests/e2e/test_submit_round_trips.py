"""How often a submit asks the store, and what it does when the store has lost what it had seen there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from graflow_celery import ParallelGroup, RunStatus, Settings, StoreUnavailableError, WorkflowContext, task, workflow
from graflow_celery.embedded import EmbeddedServer, EmbeddedWorkers
from graflow_celery.runs import client_runtime
from graflow_celery.settings import load_settings

#: Commands with which a connection begins.
GREETING = (b"HELLO", b"CLIENT", b"AUTH", b"SELECT")

COUNTING = f"""
import json
import redis.connection
from graflow_celery import ParallelGroup, chain, task, workflow
from graflow_celery.redis_backend.client import Patient
from graflow_celery.settings import load_settings

sent = []
send = redis.connection.AbstractConnection.send_packed_command

def noted(self, command, check_health=True):
    data = b"".join(command) if isinstance(command, list) else command
    if data.split(b"\\r\\n")[2] not in {GREETING!r}:
        sent.append("store" if isinstance(self.retry, Patient) else "broker")
    return send(self, command, check_health)

redis.connection.AbstractConnection.send_packed_command = noted

@task
def noop():
    return 1

with workflow("chain") as line:
    chain(*(noop(task_id=f"n{{index}}") for index in range(1000)))
with workflow("group") as group:
    ParallelGroup([noop(task_id=f"m{{index}}") for index in range(1000)], name="members")
counts = []
for wf in (line, group, line, group):
    sent.clear()
    run = wf.submit(settings=load_settings(queue="nobody"))
    counts.append([run.uploaded_blobs, sent.index("broker"), sent.count("store")])
    run.cancel()
print(json.dumps(counts))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer() as started:
        yield started


def test_an_unchanged_graph_of_a_thousand_tasks_takes_two_round_trips(server: EmbeddedServer, tmp_path: Path) -> None:
    """Two before anything is sent, one after, by which the outbox knows; in a new process, and again."""
    script = tmp_path / "counting.py"
    script.write_text(COUNTING)
    environment = {**os.environ, "GRAFLOW_CELERY_REDIS_URL": server.url}

    def counts() -> list[list[int]]:
        done = subprocess.run(
            [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        found: list[list[int]] = json.loads(done.stdout)
        return found

    first = counts()
    assert first[0][0] > 50, "the pages, and the function"
    assert first[2:] == [[0, 2, 3]] * 2
    assert counts() == [[0, 2, 3]] * 4


@task
def double(number: int) -> int:
    return 2 * number


def doubling() -> WorkflowContext:
    with workflow("doubling") as wf:
        ParallelGroup([double(task_id=f"m{index}", number=index) for index in range(300)], name="members")
    return wf


@pytest.mark.workers
@pytest.mark.parametrize("lost", ["all", "all, and all but one script", "manifest"])
def test_a_store_that_lost_what_was_seen_there_gets_it_again(lost: str, tmp_path: Path) -> None:
    with EmbeddedServer() as server:
        settings = load_settings(redis_url=server.url)
        wf, runtime = doubling(), client_runtime(settings)
        first = wf.submit(settings=settings)
        first.cancel()
        assert first.uploaded_blobs > 2
        if lost.startswith("all"):
            runtime.client.flushdb()
            if lost != "all":
                runtime.client.script_flush()
                runtime.client.script_load(runtime.scripts["advance"].script)
        else:
            runtime.client.delete(runtime.keys.blob(first.graph_hash))
        second = wf.submit(settings=settings)
        present = {key.decode().rpartition(":")[2] for key in runtime.client.keys(f"{runtime.keys.prefix}:blob:*")}
        assert second.graph_hash in present
        with EmbeddedWorkers(settings, 1, concurrency=2):
            assert second.wait(60) is RunStatus.SUCCEEDED
            assert second.result()["m299"] == 598


def test_a_server_that_is_away_by_the_second_submit_is_named_at_once(tmp_path: Path) -> None:
    with EmbeddedServer() as server:
        settings = load_settings(redis_url=server.url)
        wf = doubling()
        wf.submit(settings=settings)
    started = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="No server answers at unix://"):
        wf.submit(settings=settings)
    with pytest.raises(StoreUnavailableError, match="No server answers at unix://"):
        wf.submit(run_id="mine", settings=settings)
    assert time.monotonic() - started < 4.0


@pytest.mark.workers
def test_the_second_submit_of_a_client_uploads_nothing(graflow_settings: Settings) -> None:
    wf = doubling()
    assert wf.submit(settings=graflow_settings).wait(60) is RunStatus.SUCCEEDED
    assert wf.submit(settings=graflow_settings).uploaded_blobs == 0
