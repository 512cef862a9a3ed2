"""Messages that we did not send, in a worker's main process: it goes on, whatever Celery has it do with them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from graflow_celery import Settings, task, workflow
from graflow_celery.celery_backend.compiler import NODE_TASK
from graflow_celery.core.state import RunStatus
from graflow_celery.embedded import EmbeddedServer, EmbeddedWorkers
from graflow_celery.runs import Run, client_runtime
from graflow_celery.settings import load_settings
from graflow_celery.testing import wait_until
from tests.processes import pool_of

pytestmark = pytest.mark.workers


@dataclass
class Place:
    settings: Settings
    workers: EmbeddedWorkers

    def send(self, *args: Any, **options: Any) -> str:
        """A node's message with these arguments; returns its id."""
        sent: str = client_runtime(self.settings).app.send_task(NODE_TASK, args=args, **options).id
        return sent

    @property
    def log(self) -> str:
        return self.workers[0].process.output()

    def says(self, text: str, count: int = 1) -> None:
        wait_until(lambda: len(re.findall(text, self.log)) >= count, description=f"'{text}' in the log")

    def works(self) -> None:
        """The worker beats and runs what it is given."""

        @task
        def fine() -> str:
            return "fine"

        with workflow("fine") as wf:
            wf.add(fine)
        run = wf.submit(settings=self.settings)
        assert run.wait(timeout=30) is RunStatus.SUCCEEDED
        assert "stumbled" not in self.log
        assert "Unrecoverable" not in self.log


@pytest.fixture(params=["", "a secret of this test's own"], ids=["unsigned", "signed"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with EmbeddedServer() as server:
        more = {"secret_key": request.param} if request.param else {}
        settings = load_settings(redis_url=server.url, heartbeat_timeout=3.0, **more)
        with EmbeddedWorkers(settings, 1, 1) as workers:
            yield Place(settings, workers)


def held(place: Place) -> Run:
    """A run whose node is in a queue that nobody consumes."""

    @task
    def first() -> str:
        return "one"

    with workflow("held") as wf:
        wf.add(first)
    return wf.submit(settings=place.settings.model_copy(update={"queue": "held"}))


def test_one_with_other_arguments_is_dropped_on_receipt(place: Place) -> None:
    """It would be held for an hour, and every beat tells what is held."""
    forged: list[tuple[Any, ...]] = [
        (),
        ("run",),
        ("run", "graph", "n", "1"),
        (1, 2, 3, 4),
        ("run", "graph", "n", 1, 2),
        ("run", "graph", "n", [0]),
        ("run", "graph", "n", [0, 0]),
        ("run", "graph", "n", [-1, 3]),
        ("run", "graph", "n", [0, 10**9]),
        ("run", "graph", "n", [0, 2], "", ""),
    ]
    for args in forged:
        place.send(*args, countdown=3600)
    place.send(kwargs={"run_id": "run", "graph": "graph", "node_id": "n", "attempt": 1})
    place.says("has not the arguments of a node's message", len(forged) + 1)
    place.works()


def test_one_of_a_graph_that_nobody_signed_or_has(place: Place) -> None:
    """It is held for its time, revoked before it runs and while it waits; its process dies."""
    run = held(place)
    args = (run.id, f"{'0' * 32}.{'A' * 22}", "first", 1)
    control = client_runtime(place.settings).app.control
    revoked = place.send(*args, countdown=3600)
    place.says(revoked)
    control.revoke(revoked)
    for late in (place.send(*args, countdown=3600), place.send("no run", "no graph", "a[1]@x~y", -1, countdown=3600)):
        place.says(late)
        control.revoke(late, terminate=True, signal="SIGKILL")
    expired = place.send(*args, expires=-1)
    place.says(rf"Discarding revoked task: .*{expired}")
    place.works()
    run.cancel()


def test_one_for_members_that_there_are_not(place: Place) -> None:
    """It runs, is revoked before it runs, and its process dies."""
    run = held(place)
    control = client_runtime(place.settings).app.control
    for node, members in (("first", [0, 2]), ("first", [500, 500]), ("nobody", [0, 2])):
        late = place.send(run.id, run._run.graph, node, members, countdown=3600)
        place.says(late)
        control.revoke(late, terminate=True, signal="SIGKILL")
        place.says(place.send(run.id, run._run.graph, node, members))
    place.works()
    [child] = pool_of(place.workers[0].process.pid)
    os.kill(child, signal.SIGSTOP)
    place.says(place.send(run.id, run._run.graph, "first", [0, 2]))
    os.kill(child, signal.SIGKILL)
    place.works()
    assert run.status is RunStatus.RUNNING
    run.cancel()


def test_its_process_dies(place: Place) -> None:
    run = held(place)
    [child] = pool_of(place.workers[0].process.pid)
    os.kill(child, signal.SIGSTOP)
    forged = place.send(run.id, f"{'0' * 32}.{'A' * 22}", "first", 1)
    place.says(forged)
    os.kill(child, signal.SIGKILL)
    place.works()
    assert run.status is RunStatus.RUNNING
    run.cancel()
