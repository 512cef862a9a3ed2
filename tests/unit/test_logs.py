"""What records say of the node that logged them, with the standard library's own logging."""

from __future__ import annotations

import asyncio
import contextvars
import io
import json
import logging
import threading
from collections.abc import Iterator

import pytest

from graflow_celery.logs import LINE, MESSAGE, JsonFormatter, Origin, OriginFilter, install_factory, origin, within

HERE = Origin("1a20da4dc5776968", "etl", "score[17]", 2)


@pytest.fixture
def factory() -> Iterator[None]:
    before = logging.getLogRecordFactory()
    install_factory()
    yield
    logging.setLogRecordFactory(before)


def written(formatter: logging.Formatter, *filters: logging.Filter) -> tuple[logging.Logger, io.StringIO]:
    """A logger of its own, and what it writes."""
    logger, stream = logging.getLogger("job"), io.StringIO()
    logger.handlers.clear()
    logger.propagate = False
    logger.setLevel("DEBUG")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    for one in filters:
        handler.addFilter(one)
    logger.addHandler(handler)
    return logger, stream


@pytest.mark.usefixtures("factory")
def test_a_users_format_may_use_the_attributes_inside_and_outside_of_nodes() -> None:
    text = "%(graflow_run)s %(graflow_workflow)s %(graflow_node)s %(graflow_attempt)d: %(message)s"
    logger, stream = written(logging.Formatter(text))
    with within(HERE):
        logger.info("in")
    logger.info("out")
    assert stream.getvalue().splitlines() == ["1a20da4dc5776968 etl score[17] 2: in", "   0: out"]


def test_the_format_of_workers_works_without_the_factory_too() -> None:
    logger, stream = written(logging.Formatter(LINE), OriginFilter())
    logger.info("out")
    with within(HERE):
        logger.info("in")
    assert [line.partition("] ")[2] for line in stream.getvalue().splitlines()] == [
        "out",
        "etl/score[17] #2 run 1a20da4dc5776968: in",
    ]


@pytest.mark.usefixtures("factory")
def test_a_factory_of_the_users_stays_and_ours_is_put_once_before_it() -> None:
    ours = logging.getLogRecordFactory()
    install_factory()
    assert logging.getLogRecordFactory() is ours
    assert logging.makeLogRecord({"msg": "text"}).graflow == ""  # type: ignore[attr-defined]


def test_json_lines_have_the_node_extra_and_the_traceback() -> None:
    logger, stream = written(JsonFormatter())
    logger.warning("%d rows", 7, extra={"rows": 7, "table": "users", "what": ["a"]})
    with within(HERE):
        try:
            raise ValueError("bad")
        except ValueError:
            logger.exception("it\nfailed")
    plain, failed = (json.loads(line) for line in stream.getvalue().splitlines())
    assert plain.pop("time").endswith("+00:00")
    assert plain == {
        "level": "WARNING",
        "logger": "job",
        "message": "7 rows",
        "process": "MainProcess",
        "extra": {"rows": 7, "table": "users", "what": "['a']"},
    }
    assert (failed["run"], failed["workflow"], failed["node"], failed["attempt"]) == (HERE.run, "etl", "score[17]", 2)
    assert failed["message"] == "it\nfailed"
    assert failed["error"].startswith("Traceback")
    assert failed["error"].endswith("ValueError: bad")


def test_a_line_is_bounded() -> None:
    logger, stream = written(JsonFormatter())
    logger.info("x" * 1_000_000, extra={f"k{number}": "y" * 100_000 for number in range(100)})
    line = stream.getvalue()
    assert len(line) < 50_000
    assert f"({1_000_000 - MESSAGE:,} characters more)" in json.loads(line)["message"]


def test_coroutines_have_it_and_threads_that_are_started_in_the_context() -> None:
    seen: list[Origin | None] = []

    async def body() -> None:
        await asyncio.gather(*(asyncio.to_thread(lambda: seen.append(origin())) for _ in range(2)))
        seen.append(origin())

    with within(HERE):
        asyncio.run(body())
        thread = threading.Thread(target=contextvars.copy_context().run, args=(lambda: seen.append(origin()),))
        thread.start()
        thread.join()
    assert seen == [HERE] * 4
    assert origin() is None
