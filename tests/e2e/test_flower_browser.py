"""The pages in Flower as a person uses them, in a headless Chromium; skipped where none is installed.

With GRAFLOW_TEST_SCREENSHOTS=DIRECTORY it leaves pictures there, to be looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from graflow_celery import Run
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.testing import embedded_cluster, wait_until
from tests.e2e import flower_flows
from tests.e2e.browser import DESK, Keys, Reader, alert, chromium
from tests.e2e.flower import Flower
from tests.e2e.shell import Shell

pytestmark = [pytest.mark.workers, pytest.mark.slow, pytest.mark.timeout(240)]
PHONE = (390, 844)


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    with embedded_cluster(arguments=["-E"], concurrency=2) as started:
        yield started


@pytest.fixture(scope="module")
def flower(cluster: EmbeddedCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flower]:
    shell = Shell(tmp_path_factory.mktemp("flower"), cluster.env)
    with Flower(shell, prefix="/ops", FLOWER_UNAUTHENTICATED_API="true") as started:
        yield started


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture
def reader(driver: Any, flower: Flower) -> Iterator[Reader]:
    found = Reader(driver, flower.base)
    if alert(found):  # a test that failed may have left one
        driver.switch_to.alert.dismiss()
    found.complaints()
    yield found
    assert found.complaints() == []


@pytest.fixture(scope="module")
def submit(cluster: EmbeddedCluster) -> Callable[..., Run]:
    return lambda name, **channel: getattr(flower_flows, name).submit(
        settings=cluster.settings, initial_channel=channel
    )


@pytest.fixture(scope="module")
def census(submit: Callable[..., Run]) -> Run:
    run: Run = submit("census")
    run.wait(timeout=60)
    return run


def test_from_the_list_to_a_run_to_a_node_and_cancelled(reader: Reader, submit: Callable[..., Run]) -> None:
    run = submit("endless")
    reader.open("/workers")
    reader.click("nav a", "Pipelines")
    reader.click("#runs a", run.id)
    reader.find("#status", "running")
    reader.find(".pl-box.s-running", "slow: running")
    reader.click(".pl-box", "slow")
    reader.find("#node h2", "slow")
    reader.find("#attempts .pl-badge", "running")
    assert reader.all(".pl-attempt.s-running"), "the timeline shows what runs"
    reader.click("#cancel")
    wait_until(lambda: alert(reader), timeout=10, description="to be asked whether it is meant")
    reader.driver.switch_to.alert.accept()
    reader.find("#status", "cancelled")
    assert str(run.status) == "cancelled"
    reader.find(".pl-box", "slow: unfinished")
    assert not reader.find("#retry").get_attribute("hidden")


def test_failures_attempts_and_traceback_are_seen(reader: Reader, census: Run) -> None:
    reader.open(f"/pipelines/run/{census.id}")
    reader.find("#status", "succeeded")
    reader.find(".k-folded", "members: succeeded, group, 80/80, 2 failed")
    assert len(reader.all(".k-cell")) == 0, "a group of 80 is folded"
    reader.click(".k-folded .pl-toggle")
    wait_until(lambda: len(reader.all(".k-cell")) == 80, description="the group to open")
    assert len(reader.all(".k-cell.s-failed")) == 2
    height = reader.js("document.querySelector('.pl-lane').getAttribute('height')")
    assert int(height) <= 4 * 16, "as many rows as two processes need: what was told together did not run together"
    reader.picture("group-open")
    reader.click(".k-open .pl-toggle")
    wait_until(lambda: len(reader.all(".k-cell")) == 0, description="the group to be folded again")
    reader.click(".pl-box.k-task", "flaky")
    reader.find("#attempts .pl-badge", "retried")
    reader.find("#attempts .pl-badge", "failed")
    reader.click("#node summary")
    reader.find("#node pre", 'raise RuntimeError("no luck")')
    reader.find("#node .pl-tasks a", f"{census.id}.2.")
    reader.click("#node .pl-tasks a", f"{census.id}.2.")
    reader.click("#pipeline-link")
    reader.find("#status", "succeeded")


def test_flowers_own_tasks_lead_to_the_run_and_show_what_failed(reader: Reader, census: Run) -> None:
    for wanted, badge in (("census flaky #2", "FAILURE"), ("census flaky #1", "RETRY"), ("census m7 #1", "FAILURE")):
        reader.open(f"/tasks?state={badge}")
        reader.find(f'#tasks-table a[href="/ops/pipelines/run/{census.id}"]', wanted)
        row = reader.find("#tasks-table tbody tr", wanted)
        assert badge in row.text
        reader.picture(f"tasks-{badge}")
    reader.click(f'#tasks-table a[href="/ops/pipelines/run/{census.id}"]', "census m7 #1")
    reader.find("#status", "succeeded")


def test_names_and_errors_are_text_to_the_browser(reader: Reader, census: Run) -> None:
    reader.open(f"/pipelines/run/{census.id}")
    reader.click(".pl-box.k-task", flower_flows.HOSTILE)
    reader.find("#node h2", flower_flows.HOSTILE)
    reader.click("#nodes button", "m7")
    reader.find("#node .pl-reason", flower_flows.HOSTILE)
    for path in ("/pipelines", f"/pipelines/run/{census.id}#m47", "/tasks"):
        reader.open(path)
        reader.find("table tbody tr")
        assert reader.all("img[src=x]") == []
        assert not alert(reader)


def test_a_question_is_answered(reader: Reader, submit: Callable[..., Run]) -> None:
    run = submit("asking")
    reader.open(f"/pipelines/run/{run.id}")
    reader.find(".pl-ask", "review asks: publish <b>it</b>?")
    reader.picture("question")
    reader.click(".pl-ask button", "Approve")
    reader.find(".pl-ask", "in which tone?")
    reader.click(".pl-ask label", "very loud")
    reader.click(".pl-ask button", "Answer")
    reader.find("#status", "succeeded")
    assert run.result("review") == "very loud"


def test_what_failed_is_retried_while_one_watches(reader: Reader, submit: Callable[..., Run], tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = submit("mending", gate=str(gate))
    reader.open(f"/pipelines/run/{run.id}")
    reader.find("#status", "failed")
    reader.find("#reason", "the gate is closed")
    gate.touch()
    reader.click("#retry")
    reader.find("#status", "succeeded")
    reader.find(".pl-box.s-succeeded", "mend: succeeded, attempt 2")


def test_it_can_be_used_without_a_mouse(reader: Reader, census: Run) -> None:
    reader.open(f"/pipelines/run/{census.id}")
    reader.find(".pl-box", "begin")
    assert len(reader.all('.pl-box[tabindex="0"]')) == 1, "one stop for the Tab key"
    reader.js("document.querySelector('.pl-box[tabindex=\"0\"]').focus()")

    def focused() -> str:
        return str(reader.js("document.activeElement.getAttribute('aria-label')"))

    assert focused().startswith("begin")
    reader.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert focused().startswith("members")
    reader.driver.switch_to.active_element.send_keys(Keys.ENTER)
    wait_until(lambda: len(reader.all(".k-cell")) == 80, description="the group to open")
    reader.find("#node h2", "members")
    assert focused().startswith("members")


def test_a_graph_of_2000_nodes_stays_usable(reader: Reader, submit: Callable[..., Run]) -> None:
    run = submit("long")
    run.wait(timeout=150)
    reader.open(f"/pipelines/run/{run.id}")
    reader.find("#status", "succeeded")
    reader.find("#progress", "2,001 succeeded")
    assert len(reader.all(".pl-box")) <= 240
    assert len(reader.all(".pl-attempt")) < 2 * 1400
    reader.picture("long")
    began = reader.js("performance.now()")
    reader.click("#graph-tools button", "Later")
    reader.find(".pl-box", "n300:")
    reader.find("#nodes-text").send_keys("n1999")
    reader.click("#nodes button", "n1999")
    reader.find("#node h2", "n1999")
    assert reader.js("performance.now()") - began < 10_000
    reader.click("#graph-tools button", "Earlier")
    reader.find(".pl-box", "n3:")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_light_and_dark_and_narrow(reader: Reader, census: Run, size: tuple[int, int], scheme: str) -> None:
    reader.look(size, scheme)
    for path, ready in (("/pipelines", "#runs a"), (f"/pipelines/run/{census.id}#flaky", "#attempts")):
        reader.open(path)
        reader.find(ready)
        reader.find("body")
        assert reader.js("document.documentElement.scrollWidth") <= size[0], "nothing sticks out"
        shade = reader.js("getComputedStyle(document.querySelector('.pl-card')).backgroundColor")
        brightness = sum(int(part) for part in shade.removeprefix("rgb(").removesuffix(")").split(",")) / 3
        assert (brightness < 80) == (scheme == "dark"), shade
        reader.picture(f"{'list' if path == '/pipelines' else 'run'}-{scheme}-{size[0]}")
