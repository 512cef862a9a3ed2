"""Collecting lines: bounded, batched, and never in the way of the code that logs."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Iterator

import pytest
from celery import Celery

from graflow_celery.celery_backend import collecting
from graflow_celery.celery_backend.app import setup
from graflow_celery.celery_backend.collecting import COLLECTORS, Collector
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.logs import TASK_LINE, Origin, within
from graflow_celery.redis_backend.client import Client, connect
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.log_stream import KEPT, Line, LogReader
from graflow_celery.settings import load_settings
from graflow_celery.testing import wait_until

HERE = Origin("r", "etl", "clean", 1)


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with EmbeddedServer() as server:
        made = connect(server.url)
        yield made
        made.close()


@pytest.fixture
def keys() -> Keys:
    return Keys(uuid.uuid4().hex[:8])


def logger_of(collector: Collector) -> logging.Logger:
    logger = logging.getLogger(f"job.{uuid.uuid4().hex}")
    logger.propagate = False
    logger.setLevel("DEBUG")
    logger.addHandler(collector)
    return logger


def test_lines_of_nodes_are_kept_with_what_they_have_and_others_are_not(client: Client, keys: Keys) -> None:
    collector = Collector(client, keys, 60, "w@here")
    logger = logger_of(collector)
    logger.info("nobody's")
    with within(HERE):
        logger.warning("%s rows", 7, extra={"rows": 7})
        try:
            raise ValueError("bad")
        except ValueError:
            logger.exception("failed")
    collector.finish()
    first, second = LogReader(client, keys.run("r").logs).read()
    first, at = dict(first), first["at"]
    assert str(first.pop("logger")).startswith("job.")
    del first["at"]
    assert abs(at - time.time()) < 10
    assert first == {
        "node": "clean",
        "attempt": 1,
        "worker": "w@here",
        "level": "WARNING",
        "message": "7 rows",
        "extra": {"rows": 7},
    }
    assert second["error"].endswith("ValueError: bad")
    assert 0 < client.ttl(keys.run("r").logs) <= 60


def test_a_run_that_logs_much_keeps_its_newest_lines(client: Client, keys: Keys) -> None:
    collector = Collector(client, keys, 60, "w")
    logger = logger_of(collector)
    with within(HERE):
        for number in range(5):
            for _ in range(KEPT // 4):
                logger.info("line %d", number)
            collector.finish()
    assert KEPT <= client.xlen(keys.run("r").logs) <= KEPT + 200


def test_what_the_buffer_has_no_room_for_is_counted_and_told(
    client: Client, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "BUFFERED", 100)
    collector = Collector(client, keys, 60, "w")
    logger = logger_of(collector)
    with within(HERE):
        for number in range(5000):
            logger.info("%d", number)
    collector.finish()
    reader = LogReader(client, keys.run("r").logs)
    lines = [line for _ in range(20) for line in reader.read()]
    dropped = sum(line.get("dropped", 0) for line in lines)
    assert len([line for line in lines if "dropped" not in line]) + dropped == 5000
    assert dropped > 0
    assert any("lines were dropped here" in line["message"] for line in lines)


def test_a_server_that_is_away_slows_nobody_and_what_was_lost_is_told_when_it_is_back() -> None:
    server = EmbeddedServer()
    server.start()
    try:
        client, keys = connect(server.url), Keys("away")
        collector = Collector(client, keys, 60, "w")
        logger = logger_of(collector)
        server.process.kill()
        began = time.perf_counter()
        with within(HERE):
            for _ in range(100):
                logger.info("lost")
        assert time.perf_counter() - began < 0.5
        wait_until(lambda: collector._complained, description="the sender to give up")
        server.start()
        with within(HERE):
            logger.info("kept")
        reader = LogReader(client, keys.run("r").logs)
        found: list[Line] = []

        def both() -> bool:
            found.extend(reader.read())
            return len(found) >= 2

        wait_until(both, description="the lines")
        assert {line.get("dropped") for line in found} == {None, 100}
        assert "kept" in [line["message"] for line in found]
    finally:
        server.stop()


def test_a_message_that_cannot_be_made_text_harms_nobody(client: Client, keys: Keys) -> None:
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    collector = Collector(client, keys, 60, "w")
    raised, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        with within(HERE):
            logger_of(collector).info("%s", Broken())
            logger_of(collector).info("fine")
    finally:
        logging.raiseExceptions = raised
    collector.finish()
    assert [line["message"] for line in LogReader(client, keys.run("r").logs).read()] == ["fine"]


def test_a_process_has_one_collector_and_a_forked_child_none(client: Client, keys: Keys) -> None:
    settings = load_settings(collect_logs=True)
    try:
        COLLECTORS.ensure(client, keys, load_settings(collect_logs=False), "w")
        assert COLLECTORS.made is None
        COLLECTORS.ensure(client, keys, settings, "w")
        COLLECTORS.ensure(client, keys, settings, "w")
        made = COLLECTORS.made
        assert logging.getLogger().handlers.count(made) == 1  # type: ignore[arg-type]
        child = os.fork()
        if not child:
            os._exit(int(COLLECTORS.made is not None or made in logging.getLogger().handlers))
        assert os.waitpid(child, 0)[1] == 0
    finally:
        COLLECTORS.forget()
    assert made not in logging.getLogger().handlers


@pytest.mark.parametrize("before", [True, False])
def test_a_format_that_an_app_has_stays(before: bool) -> None:
    url = "redis://127.0.0.1:1/0"
    own = Celery("proj", broker=url, backend=url, set_as_current=False)
    if before:
        own.conf.worker_log_format = "OWN %(message)s"
    setup(own, load_settings(redis_url=url))
    if not before:
        own.conf.update(worker_log_format="OWN %(message)s")
    assert own.conf.worker_log_format == "OWN %(message)s"
    assert own.conf.worker_task_log_format == TASK_LINE
