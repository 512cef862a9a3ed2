"""Metrics as Prometheus gets them: from a monitor and from Flower, of real runs on real workers."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from prometheus_client.parser import text_string_to_metric_families

from graflow_celery.embedded import EmbeddedCluster, EmbeddedServer
from graflow_celery.metrics.catalogue import CATALOGUE
from graflow_celery.testing import embedded_cluster, wait_until
from tests.e2e.flower import Flower
from tests.e2e.markdown import ROOT, Page
from tests.e2e.shell import Shell
from tests.e2e.workflows import DEADLY, FAILING, GREETING
from tests.servers import free_port

PAGE = ROOT / "docs" / "how-to" / "metrics.md"

Samples = dict[tuple[str, ...], float]


def scrape(url: str) -> Samples:
    """What is served there: the value of each series by its name, labels' values and names in order."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def serves(url: str) -> bool:
    try:
        return bool(scrape(url))
    except urllib.error.URLError:
        return False


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    """One whose counts are of this module's runs."""
    with embedded_cluster(workers=2, concurrency=1) as started:
        yield started


@pytest.fixture
def own_shell(cluster: EmbeddedCluster, tmp_path: Path) -> Shell:
    return Shell(tmp_path, cluster.env)


@pytest.mark.workers
@pytest.mark.slow
def test_a_monitor_and_flower_tell_the_same_of_all_runs(own_shell: Shell) -> None:
    own_shell.write("greeting.py", GREETING)
    own_shell.write("failing.py", FAILING)
    own_shell.write("deadly.py", DEADLY)
    for name, code in (("greeting", 0), ("greeting", 0), ("failing", 1), ("deadly", 1)):
        assert own_shell("run", name, "--backend", "celery").code == code
    port = free_port()
    here = f"http://127.0.0.1:{port}/metrics"
    with own_shell.start("monitor", "--metrics-port", str(port)) as monitor, Flower(own_shell) as flower:
        there = f"{flower.base}/metrics"
        monitor.says(f"metrics at {here}")
        wait_until(lambda: serves(here) and serves(there), timeout=30, description="both to serve")
        wait_until(
            lambda: ("graflow_runs_total", "status=failed", "workflow=deadly") in scrape(there), description="all"
        )
        read = ("graflow_content_reads_total", "found=memory")
        wait_until(lambda: scrape(there)[read] >= 4, description="the beats that tell it")
        mine, flowers = scrape(here), scrape(there)
        monitor.process.terminate()
        assert monitor.wait(10).code == 0
    for found in (mine, flowers):
        assert any(name == "process_open_fds" for name, *_ in found), "those of the process itself are there too"
    for found in (mine, flowers):
        assert found["graflow_runs_total", "status=succeeded", "workflow=greeting"] == 2
        assert found["graflow_runs_total", "status=failed", "workflow=failing"] == 1
        assert found["graflow_retries_total", "node=clean", "workflow=failing"] == 1
        assert found["graflow_nodes_total", "node=greet0", "state=succeeded", "workflow=greeting"] == 2
        assert found["graflow_node_duration_seconds_count", "node=join", "workflow=greeting"] == 2
        assert found["graflow_queue_wait_seconds_count", "workflow=greeting"] == 12
        assert found["graflow_barrier_wait_seconds_count", "node=greetings", "workflow=greeting"] == 8
        assert found["graflow_attempts_lost_total", "node=deadly", "workflow=deadly"] == 2
        assert found["graflow_attempts_replaced_total", "node=deadly", "workflow=deadly"] == 1
        assert found["graflow_nodes_poisoned_total", "node=deadly", "workflow=deadly"] == 1
        ages = {
            tuple(labels): age
            for (name, *labels), age in found.items()
            if name == "graflow_worker_heartbeat_age_seconds"
        }
        assert len(ages) == 2
        assert all(0 <= age < 10 for age in ages.values())
        assert found["graflow_queue_workers", "queue=celery"] == 2
        assert found["graflow_queue_received_total", "queue=celery"] >= 4, "a message may be for many attempts"
        assert found["graflow_content_reads_total", "found=store"] >= 2
        assert found["graflow_content_reads_total", "found=memory"] >= 4
        assert found["graflow_content_bytes_total", "direction=in"] > 500
        assert found["graflow_store_up",] == 1
        assert sum(value for (name, *_), value in found.items() if name == "graflow_monitor_leader") == 1


@pytest.mark.workers
@pytest.mark.parametrize("option", ["--pipelines", "--no-pipelines"])
def test_a_store_that_hangs_holds_up_a_scrape_and_nothing_else_of_flower(
    server: EmbeddedServer, tmp_path: Path, option: str
) -> None:
    store = {"GRAFLOW_CELERY_REDIS_URL": server.url, "GRAFLOW_CELERY_BROKER_URL": "memory://"}
    with Flower(Shell(tmp_path, store), option) as flower, ThreadPoolExecutor(1) as pool:
        browser = flower.browser()
        process = psutil.Process(server.process.pid)
        process.suspend()
        try:
            scraped = pool.submit(flower.browser().get, "/metrics")
            deadline = time.monotonic() + 2.0
            while time.monotonic() < deadline:
                assert browser.get("/healthcheck").code == 200
            assert not scraped.done(), "the scrape waits, and Flower does not"
        finally:
            process.resume()
        assert "graflow_store_up 1.0" in scraped.result().text


def test_a_port_that_is_taken_is_an_error(own_shell: Shell) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        answer = own_shell("monitor", "--metrics-port", str(taken.getsockname()[1]))
    assert answer.code == 2
    assert "--metrics-port" in answer.err


def test_a_monitor_listens_nowhere_unless_it_is_told_to(own_shell: Shell) -> None:
    with own_shell.start("monitor") as monitor:
        monitor.says("stands by")
        ours = psutil.Process(monitor.process.pid)
        assert not [one for one in ours.net_connections() if one.status == psutil.CONN_LISTEN]
        monitor.process.terminate()
        assert monitor.wait(10).code == 0


def test_the_page_lists_the_metrics_of_the_code() -> None:
    rows = Page(PAGE).rows_after("## Every metric")
    wanted = [
        [f"`{metric.name}`", metric.kind, ", ".join(f"`{label}`" for label in metric.labels), metric.meaning]
        for metric in CATALOGUE
    ]
    shown = "\n".join(f"| {' | '.join(row)} |" for row in wanted)
    assert rows == wanted, f"docs/how-to/metrics.md should have:\n\n{shown}"
