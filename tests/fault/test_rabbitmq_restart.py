"""RabbitMQ goes away and comes back while workers hold messages of it; the state is in Redis and stays."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from graflow_celery import ParallelGroup, task, workflow
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.testing import wait_until
from tests.servers import RabbitMQ

pytestmark = [pytest.mark.workers, pytest.mark.slow]


@task
def through(name: str, gate: str) -> str:
    """Notes that it runs, and waits until the gate is open."""
    with Path(gate, "ran").open("a") as ran:
        ran.write(f"{name}\n")
    wait_until(Path(gate, "open").exists, timeout=90, description="the gate to open")
    return name


@task
def gathered(members: dict[str, str]) -> list[str]:
    return sorted(members.values())


def test_a_run_goes_on_when_rabbitmq_comes_back(tmp_path: Path) -> None:
    with RabbitMQ(tmp_path / "rabbitmq") as broker:
        cluster = EmbeddedCluster(1, 2, broker_url=broker.url)
        cluster.start()
        try:
            with workflow("over rabbitmq") as wf:
                members = [through(task_id=f"m{name}", name=name, gate=str(tmp_path)) for name in "abcdef"]
                ParallelGroup(members, name="members", batch=1) >> gathered
            run = wf.submit(settings=cluster.settings)
            ran = tmp_path / "ran"
            running = lambda: ran.exists() and len(ran.read_text().split()) == 2  # noqa: E731
            wait_until(running, description="two tasks to run, with others prefetched")
            broker.process.kill()
            broker.start()
            (tmp_path / "open").touch()

            async def awaited() -> Any:
                return await run

            assert asyncio.run(asyncio.wait_for(awaited(), 60)) == list("abcdef")
            ended = [record["node"] for record in run.events() if record["event"] == "node_succeeded"]
            assert sorted(ended) == sorted(["gathered", "ma", "mb", "mc", "md", "me", "mf"])
            assert cluster.workers[0].process.running
        finally:
            cluster.stop(grace=0.0)
