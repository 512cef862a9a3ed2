"""Values that somebody without the secret put there, read by a worker that has it: an error that names them, once."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graflow_celery import Settings, task, workflow
from graflow_celery.celery_backend.compiler import NODE_TASK
from graflow_celery.codec.manifest import pack_graph
from graflow_celery.codec.values import ValueCodec
from graflow_celery.core.state import RunStatus
from graflow_celery.embedded import EmbeddedServer, EmbeddedWorkers
from graflow_celery.errors import BlobRejectedError
from graflow_celery.redis_backend.content_store import ContentStore
from graflow_celery.redis_backend.values import ValueStore
from graflow_celery.runs import Run, client_runtime
from graflow_celery.settings import load_settings
from tests.e2e import forged_reads

pytestmark = pytest.mark.workers

SECRET = secrets.token_hex(16)
FORGERS = {"unsigned": (), "another secret": (b"another secret of somebody",)}


class Marker:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.more = secrets.token_bytes(size)

    def __reduce__(self) -> Any:
        return mark, (str(self.path), self.more)


def mark(path: str, more: bytes) -> str:
    Path(path).touch()
    return path


@pytest.fixture(scope="module")
def settings() -> Iterator[Settings]:
    with EmbeddedServer() as server:
        settings = load_settings(redis_url=server.url, secret_key=SECRET)
        with EmbeddedWorkers(settings, 1, 1, queues=["later"]):
            yield settings


@pytest.fixture(params=sorted(FORGERS))
def forger(request: pytest.FixtureRequest, settings: Settings) -> ValueStore:
    """Writes values into the same store."""
    runtime = client_runtime(settings)
    codec = ValueCodec(("json", "pickle"), FORGERS[request.param])
    content = ContentStore(runtime.client, runtime.keys, codec, 7200, 1 << 20)
    return ValueStore(codec, content, settings.value_threshold)


@pytest.fixture(params=[10, 200_000], ids=["small", "large"])
def forged(request: pytest.FixtureRequest, tmp_path: Path) -> Marker:
    return Marker(tmp_path / "unpickled", request.param)


def refused(run: Run, node: str, what: str, forged: Marker) -> None:
    assert run.wait(timeout=30) is RunStatus.FAILED
    error = run._runtime.store.error(run._run, node)
    assert isinstance(error, BlobRejectedError)
    assert what in str(error).lower()
    assert "sign" in str(error)
    events = [record["event"] for record in run.events() if record.get("node") == node]
    assert events.count("node_failed") == 1
    assert events.count("node_queued") == ("[" not in node)  # members are queued with their group
    assert "node_retried" not in events
    assert not forged.path.exists()


@pytest.mark.parametrize("func", [forged_reads.reads, forged_reads.takes], ids=["by the task", "for a parameter"])
def test_in_the_channel(settings: Settings, forger: ValueStore, forged: Marker, func: Any) -> None:
    asks = func is forged_reads.reads
    with workflow("channel") as wf:
        wf.add(task(id="reads", queue="held", inject_context=asks, max_retries=3)(func))
    run = wf.submit(settings=settings)
    runtime = client_runtime(settings)
    runtime.client.hset(runtime.keys.run(run.id).channel, "value", forger.pack_entry(forged, "value"))
    send(run, "reads")
    refused(run, "reads", "'value'", forged)


def test_as_an_input(settings: Settings, forger: ValueStore, forged: Marker) -> None:
    with workflow("input") as wf:
        wf.add(task(id="takes", queue="held", max_retries=3)(forged_reads.takes).map(over="items"))
    run = wf.submit(settings=settings, initial_channel={"items": ["honest"]})
    runtime = client_runtime(settings)
    assert runtime.client.hset(runtime.keys.run(run.id).inputs, "takes[0]", forger.pack(forged, "input")) == 0
    send(run, "takes[0]")
    refused(run, "takes[0]", "input of 'takes[0]'", forged)


def test_as_a_bound_value(settings: Settings, forger: ValueStore, forged: Marker) -> None:
    takes = task(queue="held", max_retries=3)(forged_reads.takes)(task_id="takes", value={1, secrets.token_hex(8)})
    with workflow("bound") as wf:
        wf.add(takes)
    run = wf.submit(settings=settings)
    runtime = client_runtime(settings)
    _, name = pack_graph(wf.plan(), {"takes": takes}, runtime.codec).parts
    content = forger.codec.written(forged, what="forged")
    data = forger.codec.seal(content.payload, content.serializer, name)
    assert runtime.client.set(runtime.keys.blob(name), data, xx=True)
    send(run, "takes")
    refused(run, "takes", "argument 'value' of task 'takes'", forged)


def send(run: Run, node: str) -> None:
    """Sends a node's message to the worker: by its own queue nobody gets it."""
    run._runtime.app.send_task(NODE_TASK, args=(run.id, run._run.graph, node, 1), queue="later")
