"""With pickle off, on workers: what works, what is refused where it is made, and what is refused unread."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from graflow_celery import Settings, WorkflowContext, task, workflow
from graflow_celery.celery_backend.compiler import NODE_TASK
from graflow_celery.core.state import RunStatus
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.errors import GraphCompilationError, RemoteError, SerializationError
from graflow_celery.runs import Run, client_runtime
from graflow_celery.testing import embedded_cluster, wait_until
from tests.e2e import trusting

pytestmark = pytest.mark.workers


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    with embedded_cluster(serializers=("json",)) as started:
        yield started


@pytest.fixture
def settings(cluster: EmbeddedCluster) -> Settings:
    return cluster.settings


@pytest.fixture
def pickling(settings: Settings) -> Settings:
    """The settings of another client of the same store, which allows pickle."""
    return settings.model_copy(update={"serializers": ("json", "pickle")})


class Marker:
    """Unpickling it leaves a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


def one(func: Any, **bound: Any) -> WorkflowContext:
    with workflow("one") as wf:
        wrapper = task(id=func.__name__, inject_context=func is trusting.put, max_retries=3)(func)
        if bound:
            wrapper(task_id="bound", **bound)
    return wf


def ended(wf: WorkflowContext, settings: Settings, **options: Any) -> Run:
    run = wf.submit(settings=settings, **options)
    run.wait(timeout=30)
    return run


def attempts(run: Run, node: str) -> int:
    report = run.nodes()[node]
    assert report is not None
    return report.attempt


def test_importable_functions_and_plain_data_work(settings: Settings) -> None:
    with workflow("plain") as wf:
        task(trusting.plain) >> task(trusting.count)
    run = ended(wf, settings)
    assert run.result("count") == [200_000, 1, 2, 3]
    assert ended(one(trusting.given), settings, initial_channel={"value": b"bytes"}).result() == "bytes"


def test_a_result_that_needs_pickle_fails_its_node_once(settings: Settings) -> None:
    run = ended(one(trusting.pair), settings)
    assert run.status is RunStatus.FAILED
    with pytest.raises(SerializationError) as caught:
        run.result()
    text = str(caught.value)
    assert text.startswith("Result of task 'pair': a value of type 'tuple' does not come back exactly from json")
    assert "or add pickle to serializers" in text
    assert [record["event"] for record in run.events() if record["event"].startswith("node_retr")] == []
    assert attempts(run, "pair") == 1


def test_a_channel_value_that_needs_pickle_fails_its_node_once(settings: Settings) -> None:
    run = ended(one(trusting.put), settings)
    with pytest.raises(SerializationError, match=r"^Channel key 'pair': a value of type 'tuple'"):
        run.result()
    assert attempts(run, "put") == 1


def test_an_exception_travels_by_type_and_text(settings: Settings) -> None:
    run = ended(one(trusting.refuse), settings)
    with pytest.raises(RemoteError, match=r"Refusal.*not today") as caught:
        run.result()
    assert "tests.e2e.trusting.Refusal" in str(caught.value)


def stored(settings: Settings) -> set[bytes]:
    return set(client_runtime(settings).client.scan_iter("graflow:*"))


@pytest.mark.parametrize("value", [(1, 2), [(1, 2)], {"a": {1}}], ids=str)
def test_what_needs_pickle_is_refused_before_anything_is_stored(settings: Settings, value: object) -> None:
    before = stored(settings)
    with pytest.raises(GraphCompilationError, match="Channel key 'value': a value of type"):
        one(trusting.given).submit(settings=settings, initial_channel={"value": value})
    with pytest.raises(GraphCompilationError, match="Argument 'value' of task 'bound': a value of type"):
        one(trusting.given, value=value).submit(settings=settings)
    made = {key for key in stored(settings) - before if b":blob:" in key or b":run:" in key}
    assert made == set()


def test_a_function_that_cannot_be_imported_is_refused_at_submit(settings: Settings, pickling: Settings) -> None:
    mark = secrets.token_hex(4)

    def nested() -> str:
        return mark

    before = stored(settings)
    with pytest.raises(GraphCompilationError, match="Task 'nested': its function cannot be sent by name"):
        one(nested).submit(settings=settings)
    assert {key for key in stored(settings) - before if b":blob:" in key} == set()
    # Also where another client has stored it; and what that one submits is refused by the worker, unread.
    run = ended(one(nested), pickling)
    assert run.status is RunStatus.FAILED
    assert "does not allow pickle on worker" in run.reason
    with pytest.raises(GraphCompilationError, match="Task 'nested': its function cannot be sent by name"):
        one(nested).submit(settings=settings)


@pytest.mark.parametrize("is_large", [False, True], ids=["in place", "a blob"])
def test_a_pickle_of_another_client_is_refused_unread(
    settings: Settings, pickling: Settings, tmp_path: Path, is_large: bool
) -> None:
    value = [Marker(tmp_path / "unpickled"), secrets.token_bytes(200_000 if is_large else 10)]
    run = ended(one(trusting.given), pickling, initial_channel={"value": (value, 1)})
    assert run.status is RunStatus.FAILED
    assert "Setting serializers (json) does not allow pickle. It was not decoded." in run.reason
    assert ("Blob " in run.reason) == is_large
    assert "value of 'value'" in run.reason.lower()
    assert attempts(run, "given") == 1
    assert not (tmp_path / "unpickled").exists()
    # A bound value lies in the graph.
    run = ended(one(trusting.given, value=(value, 2)), pickling)
    assert "Setting serializers (json) does not allow pickle. It was not decoded." in run.reason
    assert not (tmp_path / "unpickled").exists()


def test_messagepack_alone_will_do() -> None:
    pytest.importorskip("numpy")
    with embedded_cluster(serializers=("msgpack",)) as other:
        with workflow("arrays") as wf:
            task(trusting.array) >> task(trusting.total)
        run = ended(wf, other.settings, initial_channel={"any": [1, {"a": (None, 2.5)}]})
        assert run.result("total") == (1_249_975_000, (b"x", {1, 2}))
        assert run.result("array")["pair"] == (b"x", {1, 2})
        with pytest.raises(GraphCompilationError, match="does not come back exactly from msgpack"):
            one(trusting.given).submit(settings=other.settings, initial_channel={"value": object()})


def test_frames_tables_and_arrays_pass_between_workers(graflow_settings: Settings) -> None:
    for library in ("numpy", "pandas", "pyarrow"):
        pytest.importorskip(library)
    with workflow("frames") as wf:
        task(trusting.frames) >> task(trusting.copied)
    run = ended(wf, graflow_settings)
    assert run.status is RunStatus.SUCCEEDED, run.reason
    here, changed, first = trusting.frames(), run.result("copied"), run.result("frames")
    for name, found in first.items():
        assert type(found) is type(here[name])
        assert (found == here[name]).all() if name in ("array", "small") else found.equals(here[name])
    assert first["array"].flags.f_contiguous
    assert (changed["array"][0, 0], changed["frame"]["n"][0]) == (-1, -1)
    assert changed["table"].equals(here["table"])


def test_a_worker_does_not_load_them(settings: Settings) -> None:
    assert ended(one(trusting.loaded), settings).result() == []


# --- Celery's messages ----------------------------------------------------------------------------------------


def test_a_pickled_message_is_refused_unread(cluster: EmbeddedCluster, settings: Settings, tmp_path: Path) -> None:
    """Our app's accept_content is JSON alone. The message goes to a worker's own queue, as one of our tasks."""
    mark = tmp_path / "unpickled"
    forger = Celery("forger", broker=settings.broker, set_as_current=False)
    forger.conf.broker_transport_options = {"body_encoding": "base64"}
    for name in (NODE_TASK, "any.other.task"):
        forger.send_task(name, args=(Marker(mark), "g", "n", 1), serializer="pickle", queue=settings.queue)
    with forger.connection_for_write() as connection:  # without the headers of a task, too
        producer = connection.Producer(serializer="pickle")
        producer.publish([Marker(mark)], routing_key=settings.queue, exchange="")
    worker = cluster.workers[0]
    wait_until(lambda: worker.process.output().count("Refusing to deserialize") >= 2, description="the refusals")
    with workflow("after") as wf:
        task(trusting.plain) >> task(trusting.count)
    assert ended(wf, settings).status is RunStatus.SUCCEEDED
    assert not mark.exists()
    assert client_runtime(settings).depth(settings.queue) == 0
