"""Lines that tasks of local runs log: each says of which node it is, where a handler asks for that."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator

import pytest

from graflow_celery import TaskExecutionContext, WorkflowContext, task, workflow
from graflow_celery.logs import OriginFilter

log = logging.getLogger("tests.local_logs")


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(graflow_workflow)s/%(graflow_node)s #%(graflow_attempt)d %(message)s"))
    handler.addFilter(OriginFilter())
    log.addHandler(handler)
    log.setLevel("INFO")
    yield stream
    log.removeHandler(handler)


@task
def items() -> list[str]:
    log.info("two")
    return ["a", "b"]


@task
def score(item: str) -> None:
    log.info(item)


@task(max_retries=1, inject_context=True)
async def fetch(context: TaskExecutionContext) -> None:
    await asyncio.sleep(0)
    log.info("awaited")
    if context.retry_count == 0:
        raise ValueError("again")


LINES = ["etl/fetch #1 awaited", "etl/fetch #2 awaited", "etl/items #1 two", "etl/score[0] #1 a", "etl/score[1] #1 b"]


def etl() -> WorkflowContext:
    with workflow("etl") as wf:
        items >> score.map() >> fetch
    return wf


def test_a_line_says_which_node_of_a_local_run_logged_it(written: io.StringIO) -> None:
    etl().execute()
    log.info("outside")
    assert sorted(written.getvalue().splitlines()) == ["/ #0 outside", *LINES]


def test_so_it_does_in_a_run_that_is_awaited(written: io.StringIO) -> None:
    async def main() -> None:
        await etl().execute_async()
        log.info("outside")

    asyncio.run(main())
    assert sorted(written.getvalue().splitlines()) == ["/ #0 outside", *LINES]
