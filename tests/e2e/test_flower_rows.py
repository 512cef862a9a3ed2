"""Flower's own list of tasks: each attempt has a row that says what became of it, with what was raised."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from graflow_celery import Run
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.testing import embedded_cluster, wait_until
from tests.e2e import flower_flows
from tests.e2e.flower import Browser, Flower
from tests.e2e.shell import Shell

pytestmark = pytest.mark.workers
pytest.importorskip("flower")

LOGIN = {"Authorization": f"Basic {base64.b64encode(b'ann:pass').decode()}"}


@pytest.fixture(scope="module", params=["prefork", "threads"])
def cluster(request: pytest.FixtureRequest) -> Iterator[EmbeddedCluster]:
    # Two workers: one of them is killed.
    with embedded_cluster(workers=2, arguments=["-E", "-P", request.param], concurrency=2) as started:
        yield started


@pytest.fixture(scope="module")
def browser(cluster: EmbeddedCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Flower(Shell(tmp_path_factory.mktemp("flower"), cluster.env), "--basic_auth=ann:pass") as flower:
        browser = flower.browser(LOGIN)
        wait_until(lambda: "flower_worker_online{" in browser.get("/metrics").text, description="Flower to hear events")
        yield browser


@pytest.fixture(scope="module")
def submit(cluster: EmbeddedCluster) -> Callable[..., Run]:
    return lambda name, **channel: getattr(flower_flows, name).submit(
        settings=cluster.settings, initial_channel=channel
    )


def rows(browser: Browser, run: Run) -> dict[str, Any]:
    """Flower's tasks of a run, by what their rows show of them."""
    found = browser.get("/api/tasks", limit="10000").json
    return {task["args"]: task for name, task in found.items() if name.startswith(run.id)}


def is_running(run: Run, node: str) -> bool:
    report = run.nodes()[node]
    return report is not None and str(report.state) == "running"


def ended(browser: Browser, run: Run, args: str) -> Any:
    """The row with these arguments, once its attempt is over."""

    def over() -> bool:
        return rows(browser, run).get(args, {}).get("state") not in (None, "PENDING", "RECEIVED", "STARTED")

    wait_until(over, timeout=20, description=f"Flower to show what became of {args}")
    return rows(browser, run)[args]


def test_failed_members_are_red_though_the_group_goes_on(browser: Browser, submit: Callable[..., Run]) -> None:
    run = submit("census")
    assert str(run.wait(timeout=60)) == "succeeded"
    failed = ended(browser, run, "census m47 #1")
    assert failed["state"] == "FAILURE"
    assert failed["exception"] == f"ValueError: odd 47 {flower_flows.HOSTILE}"
    assert 'raise ValueError(f"odd {index} {HOSTILE}")' in failed["traceback"]
    assert ended(browser, run, "census m46 #1")["state"] == "SUCCESS"
    first, second = (ended(browser, run, f"census flaky #{attempt}") for attempt in (1, 2))
    assert (first["state"], first["exception"]) == ("RETRY", "RuntimeError: no luck")
    assert (second["state"], second["exception"]) == ("FAILURE", "RuntimeError: no luck")
    ended(browser, run, "census score[2] #1")
    states = [row["state"] for name, row in rows(browser, run).items() if "barrier" not in name]
    assert states.count("FAILURE") == 3
    assert states.count("RETRY") == 1
    assert states.count("SUCCESS") == len(states) - 4


def test_a_node_that_waits_for_a_person_has_done_well_so_far(browser: Browser, submit: Callable[..., Run]) -> None:
    run = submit("asking")
    assert ended(browser, run, "asking review #1")["state"] == "SUCCESS"
    run.cancel()


def test_a_replaced_attempt_is_shown_as_revoked(
    browser: Browser, submit: Callable[..., Run], cluster: EmbeddedCluster, tmp_path: Path
) -> None:
    """Its worker is killed, so it cannot say so itself."""
    gate = tmp_path / "gate"
    run = submit("gated", gate=str(gate))
    wait_until(lambda: rows(browser, run).get("gated passes #1", {}).get("worker"), timeout=20, description="a worker")
    host = rows(browser, run)["gated passes #1"]["worker"]
    wait_until(lambda: is_running(run, "passes"), timeout=20, description="the task to run")
    victim = next(worker for worker in cluster.workers if worker.name.partition("@")[0] == host.partition("@")[0])
    victim.kill()
    gate.touch()
    assert str(run.wait(timeout=60)) == "succeeded"
    assert ended(browser, run, "gated passes #1")["state"] == "REVOKED"
    assert ended(browser, run, "gated passes #2")["state"] == "SUCCESS"
