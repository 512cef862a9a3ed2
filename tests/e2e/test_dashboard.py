"""The dashboard for Grafana: what its panels ask is there, under these names and labels, once real runs have ended."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from graflow_celery import task, workflow
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.metrics import register
from graflow_celery.metrics.catalogue import CATALOGUE
from graflow_celery.runs import client_runtime
from graflow_celery.testing import embedded_cluster, wait_until
from tests.e2e.markdown import ROOT
from tests.e2e.shell import Shell
from tests.e2e.workflows import DEADLY, FAILING, GREETING, GROWING
from tests.servers import free_port

BOARD = json.loads((ROOT / "config" / "grafana-dashboard.json").read_text(encoding="utf-8"))
#: An instant selector: the name of a series, and its matchers.
SELECTOR = re.compile(r"\b(graflow_[a-z_]+)(?:{([^}]*)})?")
GROUPED = re.compile(r"\b(?:by|without|ignoring|on) \(([^)]*)\)")
#: What Prometheus adds to each series that it scrapes.
SCRAPED = frozenset({"instance", "job"})
#: What every run counts, so that a panel that asks for it has something to show.
RUNS = (("greeting", GREETING, 0), ("failing", FAILING, 1), ("deadly", DEADLY, 1), ("growing", GROWING, 0))


@dataclass(frozen=True)
class Query:
    panel: str
    expression: str
    legend: str


def queries() -> Iterator[Query]:
    for panel in BOARD["panels"]:
        for target in panel.get("targets", ()):
            yield Query(panel["title"], target["expr"], target["legendFormat"])


@task(queue="unserved")
def last() -> None: ...


Labels = Mapping[str, frozenset[str]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    with embedded_cluster(workers=1, concurrency=2) as started:
        yield started


@pytest.fixture(scope="module")
def counted(cluster: EmbeddedCluster, tmp_path_factory: pytest.TempPathFactory) -> EmbeddedCluster:
    """The cluster, when it has had runs of every kind, and has one that goes on: nobody consumes its queue."""
    shell = Shell(tmp_path_factory.mktemp("runs"), cluster.env)
    for name, text, code in RUNS:
        shell.write(f"{name}.py", text)
        assert shell("run", name, "--backend", "celery").code == code
    with workflow("lasting") as wf:
        wf.add(last)
    wf.submit(settings=cluster.settings)
    return cluster


@pytest.fixture(scope="module")
def exposed(counted: EmbeddedCluster) -> Labels:
    """The labels of each series that is exposed, by its name."""
    registry = CollectorRegistry()
    register(registry, client_runtime(counted.settings))
    found: dict[str, frozenset[str]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, frozenset()) | set(sample.labels)
    return found


@pytest.mark.workers
@pytest.mark.parametrize("query", list(queries()), ids=lambda query: f"{query.panel}: {query.legend}")
def test_a_panel_asks_for_series_and_labels_that_are_exposed(query: Query, exposed: Labels) -> None:
    selectors = SELECTOR.findall(query.expression)
    assert selectors
    there: set[str] = set()
    for name, matchers in selectors:
        assert name in exposed
        assert set(re.findall(r"(\w+)\s*=~?", matchers)) <= exposed[name]
        there |= exposed[name]
    grouped = {label.strip() for names in GROUPED.findall(query.expression) for label in names.split(",")}
    assert grouped <= there | SCRAPED
    kept = {label.strip() for names in re.findall(r"\bby \(([^)]*)\)", query.expression) for label in names.split(",")}
    assert set(re.findall(r"{{(\w+)}}", query.legend)) <= kept, "a legend names a label that the query dropped"


@pytest.mark.workers
def test_groups_that_tasks_added_have_their_barriers_measured(counted: EmbeddedCluster) -> None:
    registry = CollectorRegistry()
    register(registry, client_runtime(counted.settings))
    labels = {"workflow": "growing", "node": "grows>"}
    assert registry.get_sample_value("graflow_barrier_wait_seconds_count", labels) == 1
    labels["node"] = "one|two"
    assert registry.get_sample_value("graflow_barrier_wait_seconds_count", labels) == 2


@pytest.mark.workers
def test_the_variable_asks_for_a_label_that_is_exposed(exposed: Labels) -> None:
    [variable] = [item for item in BOARD["templating"]["list"] if item["type"] == "query"]
    name, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]).groups()  # type: ignore[union-attr]
    assert label in exposed[name]


def test_the_panels_show_all_metrics() -> None:
    there = {name: metric for metric in CATALOGUE for name in metric.samples}
    asked = {there[name] for query in queries() for name, _ in SELECTOR.findall(query.expression)}
    assert asked == set(CATALOGUE), "the dashboard leaves some out"


def test_no_two_panels_lie_on_each_other() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
                assert x < 24
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])


@pytest.mark.workers
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus here: apt install prometheus")
def test_prometheus_itself_has_an_answer_for_each_panel(counted: EmbeddedCluster, tmp_path: Path) -> None:
    port, own = free_port(), free_port()
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "graflow", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
    command = ["prometheus", "--config.file=prometheus.yml", f"--web.listen-address=127.0.0.1:{own}"]
    shell = Shell(tmp_path, counted.env)
    with shell.start("monitor", "--metrics-port", str(port)) as monitor:
        monitor.says("metrics at")
        server = subprocess.Popen(
            [*command, "--storage.tsdb.path=data"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            unanswered = set(queries())

            def answered() -> bool:
                unanswered.difference_update([query for query in unanswered if answer(own, query)])
                return not unanswered

            with contextlib.suppress(TimeoutError):
                wait_until(answered, timeout=60, description="an answer for each panel")
            assert answered(), unanswered
        finally:
            server.terminate()
            server.wait(30)


def answer(port: int, query: Query) -> list[Any]:
    """What Prometheus says to a query, with Grafana's variables filled in as Grafana does."""
    text = query.expression.replace("$__rate_interval", "1m").replace("$workflow", ".*")
    parameters = urllib.parse.urlencode({"query": text})
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{parameters}", timeout=10) as got:
            found = json.loads(got.read())
    except urllib.error.HTTPError as error:
        if error.code == 503:  # it begins
            return []
        raise AssertionError(f"{query}: {error.read().decode()}") from None
    except urllib.error.URLError:
        return []
    assert found["status"] == "success"
    result: list[Any] = found["data"]["result"]
    return result
