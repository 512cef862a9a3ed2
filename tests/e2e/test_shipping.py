"""Workers that have other code than the client, or none at all: what they are sent, and what they say."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import graflow_celery
from graflow_celery import GraphCompilationError, Settings, TaskExecutionContext, task, workflow
from graflow_celery.celery_backend.code_check import CODE_DIFFERS
from graflow_celery.codec.manifest import pack_graph
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.errors import (
    BlobRejectedError,
    CodeMismatchError,
    CodeNotFoundError,
    SerializationError,
)
from graflow_celery.ports import EventRecord
from graflow_celery.runs import Run, client_runtime
from graflow_celery.testing import embedded_cluster
from tests.unit.codec.modules import Load, loader

pytestmark = pytest.mark.workers

#: A module in two versions: the client has the second, the workers the first.
EDITED = "def double(n=21): return n * 2, 'version {0}'\ndef same(): return 'same'\n"


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Writes and imports modules that the client has and the workers don't."""
    home = tmp_path / "client"
    home.mkdir()
    with loader(home) as load:
        yield load


@contextmanager
def workers(home: Path, modules: dict[str, str], **settings: object) -> Iterator[EmbeddedCluster]:
    """A cluster whose only worker imports these modules from a place of its own, and nothing that the client has."""
    home.mkdir(exist_ok=True)
    for name, source in modules.items():
        (home / f"{name}.py").write_text(source)
    path = os.pathsep.join((str(home), str(Path(graflow_celery.__file__).parents[1])))
    with embedded_cluster(env={"PYTHONPATH": path}, **settings) as started:  # type: ignore[arg-type]
        yield started


def differing(run: Run) -> list[EventRecord]:
    return [event for event in run.events() if event["event"] == CODE_DIFFERS]


async def awaited(run: Run) -> object:
    return await run


def tries(run: Run) -> int:
    """How many attempts of tasks began, or failed before they could."""
    return sum(event["event"] in ("node_failed", "node_retried") for event in run.events())


# --- a module that was edited between client and worker -----------------------------------------------------


def test_a_worker_with_other_code_warns(load: Load, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    module = load("ship_warned", EDITED.format(2))
    with workflow("warned") as wf:
        double = task(module.double)
        double(task_id="one", n=1) >> double(task_id="two", n=2) >> task(module.same)
    with workers(tmp_path / "worker", {"ship_warned": EDITED.format(1)}, concurrency=1) as cluster:
        first, second = wf.submit(settings=cluster.settings), wf.submit(settings=cluster.settings)
        with caplog.at_level(logging.WARNING):
            assert first.wait(60) == "succeeded"
            assert asyncio.run(awaited(second)) == "same"
        log = cluster.workers[0].process.log.read_text()
        [told] = differing(first)
        assert (first.result("one"), first.result("same")) == ((2, "version 1"), "same")
        assert len(differing(second)) == 1, "each run is told"
    assert told["node"] == "one"
    assert str(told["worker"]).startswith("worker1@")
    reason = str(told["reason"])
    assert f"'ship_warned.double' has other code on worker {told['worker']} than where" in reason
    assert "Restart that worker" in reason
    assert log.count("'ship_warned.double' has other code on worker") == 1
    assert "ship_warned.same" not in log
    assert f"run {first.id}: {reason}" in caplog.messages
    assert f"run {second.id}: {reason}" in caplog.messages


def test_a_worker_with_other_code_fails_the_task_where_that_is_wanted(load: Load, tmp_path: Path) -> None:
    module = load("ship_failed", EDITED.format(2))
    with workflow("failed") as wf:
        task(max_retries=3)(module.double)
    with workers(tmp_path / "worker", {"ship_failed": EDITED.format(1)}, code_mismatch="error") as cluster:
        run = wf.submit(settings=cluster.settings)
        assert run.wait(60) == "failed"
        with pytest.raises(CodeMismatchError) as caught:
            run.result()
        assert caught.value.task_id == "double"
        assert "'ship_failed.double' has other code on worker " in str(caught.value)
        assert "Restart that worker" in str(caught.value)
        assert tries(run) == 1
        assert not differing(run)


def test_a_worker_with_other_code_says_nothing_where_nothing_is_wanted(load: Load, tmp_path: Path) -> None:
    module = load("ship_ignored", EDITED.format(2))
    with workflow("ignored") as wf:
        task(module.double)
    with workers(tmp_path / "worker", {"ship_ignored": EDITED.format(1)}, code_mismatch="ignore") as cluster:
        run = wf.submit(settings=cluster.settings)
        run.wait(60)
        assert run.result() == (42, "version 1")
        assert not differing(run)
        assert "has other code" not in cluster.workers[0].process.log.read_text()


# --- a module that the worker does not have -----------------------------------------------------------------

LIBRARY = """
import dataclasses, enum, functools, typing
from graflow_celery import TaskExecutionContext, task

FACTOR = 2
T = typing.TypeVar("T")

class Kind(enum.Enum):
    PLAIN = "plain"

@dataclasses.dataclass(frozen=True)
class Price:
    amount: int
    kind: Kind = Kind.PLAIN

    def doubled(self):
        return Price(twice(self.amount), self.kind)

class Boxed(typing.Generic[T]):
    def __init__(self, content: T): self.content = content

def twice(n): return n * FACTOR

def logged(func):
    @functools.wraps(func)
    def wrapper(*args, **kwargs): return func(*args, **kwargs)
    return wrapper

@logged
def price(start=Price(21)): return Boxed(start.doubled()).content

def shown(price): return f"{type(price).__name__} {price.amount} {price.kind.value}"

@task
def added(): return twice(4)

def adding(context: TaskExecutionContext): context.next_task(added)

class Pricing:
    def __init__(self, start): self.start = start
    def __call__(self): return twice(self.start)
    def method(self): return self()
"""


def test_a_module_that_the_worker_lacks_travels_by_value(load: Load, tmp_path: Path) -> None:
    """Its helper functions and classes travel too; what is returned comes back as the client's own class."""
    module = load("ship_lacking", LIBRARY)
    with workflow("lacking", ship="value") as wf:
        task("template")(module.price)(task_id="price", start=module.Price(4)) >> task(module.shown)
        task("pricing")(module.Pricing(3))
        task("method")(module.Pricing(5).method)
        task("adding", inject_context=True)(module.adding)
    with workers(tmp_path / "worker", {}) as cluster:
        run = wf.submit("price", settings=cluster.settings)
        run.wait(60)
        assert run.result("price") == module.Price(8)
        assert type(run.result("price")) is module.Price
        assert run.result("shown") == "Price 8 plain"
        for name, expected in (("pricing", 6), ("method", 10), ("adding", None)):
            run = wf.submit(name, settings=cluster.settings)
            run.wait(60)
            assert run.result(name) == expected
        assert run.results()["added"] == 8
        assert not differing(run)


def test_a_module_that_the_worker_lacks_is_named_and_nothing_is_retried(load: Load, tmp_path: Path) -> None:
    there, lacking = load("ship_there", "def gone(): return 1"), load("ship_not_there", "def lacking(): return 1")
    with workflow("not there") as wf:
        one, other = task(max_retries=3)(lacking.lacking), task(max_retries=3)(there.gone)
    with workers(tmp_path / "worker", {"ship_there": "def stayed(): return 1"}) as cluster:
        for node, wanted in (
            (one, "module 'ship_not_there' cannot be imported on worker "),
            (other, "'ship_there' has no attribute 'gone' on worker "),
        ):
            run = wf.submit(node.task_id, settings=cluster.settings)
            assert run.wait(60) == "failed"
            with pytest.raises(CodeNotFoundError) as caught:
                run.result()
            assert wanted in str(caught.value)
            assert "Install " in str(caught.value)
            assert tries(run) == 1


def test_a_blob_that_is_rejected_is_not_retried(load: Load, tmp_path: Path) -> None:
    """By a worker that has another secret than the client, once the graph itself was accepted."""
    module = load("ship_rejected", "def f(): return 1")
    with workflow("rejected") as wf:
        task(max_retries=3)(module.f)
    with workers(tmp_path / "worker", {"ship_rejected": "def f(): return 1"}) as cluster:
        runtime = client_runtime(cluster.settings)
        packed = pack_graph(wf.plan(), {"f": wf.graph.get_node("f")}, runtime.codec)  # type: ignore[dict-item]
        [function] = packed.parts
        runtime.content.put({function: b"no blob of ours"})
        run = wf.submit(settings=cluster.settings)
        assert run.wait(60) == "failed"
        with pytest.raises(BlobRejectedError):
            run.result()
        assert tries(run) == 1


# --- what is refused before anything runs -------------------------------------------------------------------


def test_by_reference_is_refused_at_submit_where_there_is_no_name(graflow_settings: Settings) -> None:
    nameless = task("nameless", ship="reference")(lambda: 1)
    with workflow("by reference") as wf:
        wf.add(nameless)
    client = client_runtime(graflow_settings).client
    before = set(client.scan_iter("*{*}:meta")) | set(client.scan_iter("*:blob:*"))
    with pytest.raises(
        GraphCompilationError, match=r"^Task 'nameless': ship='reference' wants .*top level of a module"
    ):
        wf.submit(settings=graflow_settings)
    assert set(client.scan_iter("*{*}:meta")) | set(client.scan_iter("*:blob:*")) == before
    assert wf.execute() == 1, "a run here sends nothing"


def test_a_task_that_is_added_travels_as_it_says(graflow_settings: Settings) -> None:
    with workflow("adding") as wf:

        @task(inject_context=True, max_retries=3)
        def adding(context: TaskExecutionContext) -> None:
            context.next_task(task("nameless", ship="reference")(lambda: 1))

    run = wf.submit(settings=graflow_settings)
    assert run.wait(60) == "failed"
    with pytest.raises(SerializationError, match=r"^Task 'nameless': ship='reference' wants "):
        run.result()
    assert tries(run) == 1
