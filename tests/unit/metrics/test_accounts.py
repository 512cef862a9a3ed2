"""Counting what is in a real store: once, whoever asks, in bounded pieces."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import click
import pytest
from celery import Celery
from flower.app import Flower
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from graflow_celery import celery, metrics
from graflow_celery.celery_backend.app import create_app, runtime_of
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.errors import UnavailableError
from graflow_celery.metrics import accounts as module
from graflow_celery.metrics.accounts import Accounts
from graflow_celery.redis_backend import tally
from graflow_celery.redis_backend.liveness import WorkerLease
from graflow_celery.settings import load_settings


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with EmbeddedServer() as server:
        yield server.url


@pytest.fixture
def runtime(url: str) -> Runtime:
    settings = load_settings(redis_url=url, key_prefix=uuid.uuid4().hex[:8])
    return runtime_of(create_app(settings), settings)


def run(runtime: Runtime, name: str, *events: str, status: str = "succeeded", at: int = 0, new: bool = True) -> None:
    """A run as far as counting goes; what comes later is told with ``new`` False."""
    keys, client = runtime.keys, runtime.client
    client.hset(keys.run(name).meta, mapping={"status": status, "workflow": "etl"})
    for event in events:
        client.xadd(keys.run(name).events, {"event": event, "node": "a", "worker": "w", "duration": 7})
    if new:
        client.zadd(keys.runs, {name: at or int(client.time()[0])})


def counts(accounts: Accounts) -> Counter[str]:
    """The counters by name, whatever their labels."""
    found = Counter[str]()
    for (name, *_), count in accounts.up_to_date()[0].items():
        found[name] += count
    return found


def test_every_event_counts_once_whoever_asks(runtime: Runtime) -> None:
    for number in range(30):
        run(runtime, f"r{number}", "run_started", "node_retried", "run_succeeded")
    many = [Accounts(runtime, 10) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            list(pool.map(lambda one: one.up_to_date(), many))
    for one in many:
        assert counts(one)["graflow_runs_total"] == counts(one)["graflow_retries_total"] == 30
    assert runtime.client.zcard(runtime.keys.metrics.turns) == 0, "runs that ended are looked at no more"


def test_a_run_is_counted_while_it_goes_on_and_after_a_retry(runtime: Runtime) -> None:
    accounts = Accounts(runtime, 10)
    run(runtime, "r", "run_started", "node_retried", status="running")
    assert (counts(accounts)["graflow_retries_total"], counts(accounts)["graflow_runs_total"]) == (1, 0)
    run(runtime, "r", "node_retried", "run_failed", status="failed", new=False)
    assert (counts(accounts)["graflow_retries_total"], counts(accounts)["graflow_runs_total"]) == (2, 1)
    run(runtime, "r", "run_retried", "node_retried", "run_succeeded", new=False)
    runtime.retries._note_uncounted("r")
    assert (counts(accounts)["graflow_retries_total"], counts(accounts)["graflow_runs_total"]) == (3, 2)


def test_work_is_bounded_and_what_is_left_is_told(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_EVENTS", 100)
    monkeypatch.setattr(tally, "EVENTS", 100)
    run(runtime, "long", "run_started", *["node_retried"] * 249)
    accounts = Accounts(runtime, 10)
    found, backlog = accounts.up_to_date()
    assert (found["graflow_retries_total", "etl", "a"], backlog) == (99, 1)
    assert counts(accounts)["graflow_retries_total"] == 199
    assert counts(accounts)["graflow_retries_total"] == 249
    assert accounts.up_to_date()[1] == 0


def test_runs_that_began_in_the_same_second_are_all_found(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "RUNS", 10)
    now = int(runtime.client.time()[0])
    for number in range(45):
        run(runtime, f"r{number}", "run_started", at=now)
    accounts = Accounts(runtime, 10)
    for _ in range(10):
        accounts.up_to_date()
    assert counts(accounts)["graflow_runs_started_total"] == 45


def test_runs_that_are_gone_and_idle_ones_are_let_go_of(runtime: Runtime) -> None:
    keys = runtime.keys
    run(runtime, "gone", "run_started", status="running")
    accounts = Accounts(runtime, 10)
    accounts.up_to_date()
    runtime.client.delete(keys.run("gone").meta, keys.run("gone").events)
    accounts.up_to_date()
    assert runtime.client.zcard(keys.metrics.turns) == 0
    runtime.client.zadd(keys.metrics.ended, {"gone": 1})
    run(runtime, "next", "run_started")
    accounts.up_to_date()
    assert list(map(bytes.decode, runtime.client.hkeys(keys.metrics.runs))) == ["next"]


def test_no_key_of_it_lives_for_ever_and_all_are_in_one_slot(runtime: Runtime) -> None:
    run(runtime, "r", "run_started", status="running")
    Accounts(runtime, 10).up_to_date()
    for key in runtime.client.keys(f"{runtime.keys.prefix}:{{metrics}}:*"):
        assert runtime.client.ttl(key) > 0, key


def test_what_a_run_needs_to_be_known_for_is_small(runtime: Runtime) -> None:
    run(runtime, "r", "run_started", *["node_queued"] * 10, "run_succeeded")
    Accounts(runtime, 10).up_to_date()
    assert len(runtime.client.hget(runtime.keys.metrics.runs, "r")) < 50
    assert json.loads(runtime.client.hget(runtime.keys.metrics.runs, "r"))[1:] == [{}, {}, {}]


def test_a_server_that_is_away_is_told_of_and_breaks_nothing_else() -> None:
    settings = load_settings(redis_url="redis://127.0.0.1:1/0")
    registry = CollectorRegistry()
    metrics.register(registry, runtime_of(create_app(settings), settings))
    text = generate_latest(registry).decode()
    assert "graflow_store_up 0.0" in text
    assert "graflow_runs" not in text


def test_flower_of_any_app_has_them_and_a_worker_does_not(runtime: Runtime) -> None:
    settings = runtime.settings
    own = Celery("proj", broker=settings.broker, backend=settings.backend, set_as_current=False)
    app = celery.setup(own, settings)
    with click.Context(click.Command("worker"), info_name="worker"):
        app.loader.import_default_modules()
    assert "graflow_store_up" not in REGISTRY._names_to_collectors
    with click.Context(click.Command("flower"), info_name="flower"):
        Flower(capp=app)
        app.loader.import_default_modules()  # once more
    try:
        assert "graflow_store_up 1.0" in generate_latest().decode()
    finally:
        REGISTRY.unregister(REGISTRY._names_to_collectors["graflow_store_up"])


def test_a_broker_that_is_away_is_asked_for_one_queue_alone(runtime: Runtime) -> None:
    settings = runtime.settings.model_copy(update={"broker_url": "amqp://guest:guest@127.0.0.1:1//"})
    away = runtime_of(create_app(settings), settings)
    queues = tuple(f"q{number}" for number in range(30))
    away.liveness.beat(WorkerLease("w@here", queues, 1, 1))
    registry = CollectorRegistry()
    metrics.register(registry, away)
    began = time.monotonic()
    text = generate_latest(registry).decode()
    assert time.monotonic() - began < 10
    assert 'graflow_queue_workers{queue="q7"} 1.0' in text
    assert "graflow_queue_messages{" not in text


def test_registering_reads_nothing_and_twice_is_an_error() -> None:
    settings = load_settings(redis_url="redis://127.0.0.1:1/0")
    registry, nowhere = CollectorRegistry(), runtime_of(create_app(settings), settings)
    metrics.register(registry, nowhere)
    with pytest.raises(ValueError, match="Duplicated"):
        metrics.register(registry, nowhere)


def test_without_prometheus_client_the_extra_is_named(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)  # as if it were not installed
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    monkeypatch.delitem(sys.modules, "graflow_celery.metrics.collector", raising=False)
    with pytest.raises(UnavailableError, match=r"graflow-celery\[metrics\]"):
        metrics.serve(runtime, 0, "127.0.0.1")
