"""RabbitMQ as the broker, Redis holding the state."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest
from kombu import Connection
from kombu.exceptions import OperationalError

from graflow_celery import ParallelGroup, Settings, task, workflow
from graflow_celery.embedded import EmbeddedCluster

URL = os.environ.get("GRAFLOW_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//")

pytestmark = pytest.mark.workers


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[Settings]:
    queue = f"graflow-test-{secrets.token_hex(4)}"
    with Connection(URL, connect_timeout=3) as connection:
        try:
            connection.ensure_connection(max_retries=1)
        except OperationalError as error:
            if os.environ.get("CI") == "true":
                pytest.fail(f"RabbitMQ is expected at {URL} on CI: {error}")
            pytest.skip(f"no RabbitMQ at {URL}")
        with EmbeddedCluster(workers=1, concurrency=2, broker_url=URL, queue=queue, queues=[queue]) as cluster:
            yield cluster.settings
        channel = connection.channel()
        channel.queue_delete(queue)


@task
def number(index: int) -> int:
    return index


@task
def add(members: dict[str, int]) -> int:
    return sum(members.values())


def test_groups_and_barriers_run_over_rabbitmq(rabbitmq: Settings) -> None:
    with workflow("rabbit") as wf:
        members = [number(task_id=f"m{index}", index=index) for index in range(50)]
        number(task_id="first", index=0) >> ParallelGroup(members, name="members") >> add
    assert wf.execute(backend="celery", settings=rabbitmq, timeout=60) == sum(range(50))
