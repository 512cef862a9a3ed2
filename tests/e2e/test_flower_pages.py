"""The Pipelines section in Flower, asked by HTTP: lists, graphs, events, buttons, and who may press them."""

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

Submit = Callable[..., Run]
SECRET = "dont-tell-anybody"
LOGIN = {"Authorization": f"Basic {base64.b64encode(b'ann:pass').decode()}"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("flower")


@pytest.fixture(scope="module")
def cluster(home: Path) -> Iterator[EmbeddedCluster]:
    with embedded_cluster(secret_key=SECRET, arguments=["-E"], concurrency=2) as started:
        yield started


@pytest.fixture(scope="module")
def shell(cluster: EmbeddedCluster, home: Path) -> Shell:
    return Shell(home, cluster.env)


@pytest.fixture(scope="module")
def submit(cluster: EmbeddedCluster) -> Submit:
    """Starts a run of a workflow of `flower_flows`."""
    return lambda name, **channel: getattr(flower_flows, name).submit(
        settings=cluster.settings, initial_channel=channel
    )


@pytest.fixture(scope="module")
def flower(shell: Shell) -> Iterator[Flower]:
    """One that asks for a name and a password, at a path of its own."""
    with Flower(shell, "--basic_auth=ann:pass", prefix="/ops") as started:
        yield started


@pytest.fixture
def browser(flower: Flower) -> Browser:
    return flower.browser(LOGIN)


@pytest.fixture(scope="module")
def census(submit: Submit) -> Run:
    run = submit("census")
    run.wait(timeout=60)
    return run


def posted(browser: Browser, run: Run, action: str, **fields: Any) -> Any:
    """What a page's button does."""
    browser.get(f"/pipelines/run/{run.id}")
    return browser.post(f"/pipelines/run/{run.id}/{action}", {"_xsrf": browser.token, **fields})


def changes(browser: Browser, run: Run, **query: str) -> Any:
    return browser.get(f"/pipelines/run/{run.id}/changes.json", **query).json


def test_flowers_own_pages_lead_to_ours(browser: Browser, census: Run) -> None:
    for path in ("/workers", "/tasks", "/pipelines"):
        page = browser.get(path)
        assert page.code == 200
        assert 'href="/ops/pipelines"' in page.text
    assert 'src="/ops/pipelines/static/runs.js"' in browser.get("/pipelines").text
    for name in ("runs.js", "run.js", "pipelines.css"):
        assert browser.get(f"/pipelines/static/{name}").code == 200
    assert '<th data-column="args">' in browser.get("/tasks").text


def test_the_list_has_state_and_counts_and_can_be_filtered(browser: Browser, census: Run, submit: Submit) -> None:
    failed = submit("mending", gate="/nowhere")
    failed.wait(timeout=30)
    told = browser.get("/pipelines/runs.json", text=census.id).json
    [row] = told["runs"]
    assert (row["workflow"], row["status"]) == ("census", "succeeded")
    assert row["finished"] >= row["started"] > 1e9

    def ids(**query: str) -> list[str]:
        return [row["run"] for row in browser.get("/pipelines/runs.json", **query).json["runs"]]

    assert failed.id in ids(state="failed")
    assert census.id not in ids(state="failed")
    assert ids(workflow="mending", state="failed")[0] == failed.id
    assert failed.id in ids(text="THE GATE is")
    assert ids(workflow="nothing of the sort") == []
    assert ids(after=failed.id)[:1] != [failed.id]
    assert census.id in ids(after=failed.id)


def test_progress_counts_tasks_and_nothing_else(browser: Browser, submit: Submit, census: Run, tmp_path: Path) -> None:
    """No group, each member of a mapped task, and what is yet to come."""

    def progress(run: Run) -> tuple[int, ...]:
        [row] = browser.get("/pipelines/runs.json", text=run.id).json["runs"]
        return tuple(row[name] for name in ("total", "succeeded", "failed", "skipped"))

    assert progress(census) == (1 + 80 + 2 + 3, 83, 3, 0)

    gate = tmp_path / "gate"
    run = submit("halfway", gate=str(gate))
    assert str(run.wait(timeout=30)) == "failed"
    assert progress(run) == (1 + 3 + 2 + 1, 5, 1, 0)
    gate.touch()
    run.retry_failed()
    assert str(run.wait(timeout=30)) == "succeeded"
    assert progress(run) == (7, 7, 0, 0)


def test_what_was_added_comes_to_the_total(browser: Browser, submit: Submit) -> None:
    run = submit("adding")
    assert str(run.wait(timeout=30)) == "succeeded"
    [row] = browser.get("/pipelines/runs.json", text=run.id).json["runs"]
    assert (row["total"], row["succeeded"]) == (4, 4)


def test_pages_follow_each_other(browser: Browser, submit: Submit) -> None:
    started = [submit("mending", gate="/nowhere").id for _ in range(27)]
    first = browser.get("/pipelines/runs.json", workflow="mending").json
    assert first["more"] is True
    after = first["runs"][-1]["run"]
    second = browser.get("/pipelines/runs.json", workflow="mending", after=after).json
    seen = [row["run"] for row in [*first["runs"], *second["runs"]]]
    assert len(set(seen)) == len(seen)
    assert seen[:27] == started[::-1]


def test_the_graph_and_the_events_tell_the_whole_run(browser: Browser, census: Run) -> None:
    nodes = {node["id"]: node for node in browser.get(f"/pipelines/run/{census.id}/graph.json").json["nodes"]}
    assert nodes["begin"]["next"] == ["members"]
    assert nodes["m3"]["group"] == "members"
    assert nodes["members"]["is_group"] is True
    assert nodes["score"]["map"] is True
    told = changes(browser, census)
    assert told["status"] == "succeeded"
    assert told["asks"] == []
    verbs = [(event["e"], event.get("a")) for event in told["events"] if event.get("n") == "flaky"]
    assert ("node_retried", 1) in verbs
    assert ("node_failed", 2) in verbs
    assert changes(browser, census, after=told["cursor"])["events"] == []
    assert len(changes(browser, census, after="no cursor; flushall")["events"]) == len(told["events"])


def test_a_node_is_told_with_error_traceback_and_celerys_tasks(browser: Browser, census: Run) -> None:
    def node(key: str) -> Any:
        return browser.get(f"/pipelines/run/{census.id}/node.json", key=key)

    def heard() -> bool:
        return all(task["known"] for task in node("flaky").json["celery"])

    wait_until(heard, timeout=10, description="Flower to hear of both attempts")
    told = node("flaky").json
    assert (told["state"], told["attempt"], told["retries"]) == ("failed", 2, 1)
    assert told["error"]["type"] == "RuntimeError"
    assert 'raise RuntimeError("no luck")' in told["error"]["traceback"]
    assert [task["attempt"] for task in told["celery"]] == [1, 2]
    page = browser.get(f"/task/{told['celery'][1]['id']}")
    assert page.code == 200
    assert f'href="/ops/pipelines/run/{census.id}"' in page.text
    assert node("score[1]").json["state"] == "succeeded"
    assert node("members").json["group"] is True
    assert node("nobody").code == 404


def test_what_is_not_there_is_said(browser: Browser) -> None:
    assert browser.get("/pipelines/run/nobody").code == 404
    assert "nobody" in browser.get("/pipelines/run/nobody/changes.json").json["error"]
    assert browser.get("/pipelines/static/..%2f..%2fhook.py").code in (403, 404)


def test_buttons_cancel_retry_and_answer(browser: Browser, submit: Submit, tmp_path: Path) -> None:
    run = submit("endless")
    assert posted(browser, run, "cancel").json == {"said": "Cancelled."}
    assert (str(run.status), run.reason) == ("cancelled", "cancelled in Flower by ann")
    assert posted(browser, run, "cancel").json == {"said": "It had ended before."}

    gate = tmp_path / "gate"
    run = submit("mending", gate=str(gate))
    assert str(run.wait(timeout=30)) == "failed"
    gate.touch()
    assert posted(browser, run, "retry").json == {"said": "1 run again, 1 are kept."}
    assert str(run.wait(timeout=30)) == "succeeded"
    again = posted(browser, run, "retry")
    assert again.code == 409
    assert "nothing of it failed" in again.json["error"]

    run = submit("asking")
    wait_until(lambda: len(changes(browser, run)["asks"]) == 1, timeout=20, description="the question")
    [asked] = changes(browser, run)["asks"]
    assert (asked["type"], asked["prompt"]) == ("approval", "publish <b>it</b>?")
    said = posted(browser, run, "answer", request=asked["id"], type="approval", value="yes", reason="fine")
    assert said.json == {"said": "Answered."}
    wait_until(lambda: bool(changes(browser, run)["asks"]), timeout=20, description="the second question")
    [asked] = changes(browser, run)["asks"]
    assert asked["options"] == ["plain", "very loud"]
    wrong = posted(browser, run, "answer", request=asked["id"], type="selection", value="whispered")
    assert wrong.code == 409
    assert posted(browser, run, "answer", request=asked["id"], type="selection", value="very loud").code == 200
    run.wait(timeout=30)
    assert run.result("review") == "very loud"
    first = run.feedback()[0].response
    assert first is not None
    assert first.responded_by == "ann"


def test_nobody_gets_in_without_the_password(flower: Flower, census: Run) -> None:
    stranger = flower.browser()
    base = f"/pipelines/run/{census.id}"
    for path in ("/pipelines", "/pipelines/runs.json", base, f"{base}/graph.json", f"{base}/changes.json"):
        assert stranger.get(path).code == 401, path
    assert stranger.get(f"{base}/node.json", key="flaky").code == 401
    assert stranger.post(f"{base}/cancel", {}).code in (401, 403)


def test_a_button_is_only_pressed_from_the_page(browser: Browser, submit: Submit) -> None:
    run = submit("endless")
    browser.get(f"/pipelines/run/{run.id}")
    address = f"/pipelines/run/{run.id}/cancel"
    assert browser.post(address, {}).code == 403
    assert browser.post(address, {"_xsrf": "made-up"}).code == 403
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://elsewhere.example"}):
        assert browser.post(address, {"_xsrf": browser.token}, headers).code == 403
    assert browser.get(address).code == 405
    assert str(run.status) == "running"
    run.cancel()


@pytest.mark.parametrize("case", ["read only", "nobody has logged in", "opened"])
def test_who_may_not_change_anything_sees_no_button(shell: Shell, submit: Submit, case: str) -> None:
    arguments = {"read only": ["--read_only=True", "--basic_auth=ann:pass"]}.get(case, [])
    env = {"opened": {"FLOWER_UNAUTHENTICATED_API": "true"}}.get(case, {})
    run = submit("endless")
    with Flower(shell, *arguments, **env) as flower:
        browser = flower.browser(LOGIN)
        page = browser.get(f"/pipelines/run/{run.id}")
        assert page.code == 200
        answer = posted(browser, run, "cancel")
    if case == "opened":
        assert 'id="cancel"' in page.text
        assert answer.code == 200
        assert str(run.status) == "cancelled"
    else:
        assert 'id="cancel"' not in page.text
        assert 'id="refusal"' in page.text
        assert answer.code == 403
        assert str(run.status) == "running"
        run.cancel()


def test_names_and_errors_are_escaped_and_no_secret_is_told(
    browser: Browser, census: Run, cluster: EmbeddedCluster
) -> None:
    base = f"/pipelines/run/{census.id}"
    pages = [browser.get(path) for path in ("/pipelines", base)]
    data = [browser.get(f"{base}/{name}.json", key=flower_flows.HOSTILE) for name in ("graph", "changes", "node")]
    for page in pages:
        assert flower_flows.HOSTILE not in page.text
        assert "script-src 'self'" in page.headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in page.headers
    for page in data:
        assert page.code == 200
        assert page.headers["Content-Type"].startswith("application/json")
        assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert flower_flows.HOSTILE in [node["id"] for node in data[0].json["nodes"]]
    told = "".join(page.text for page in [*pages, *data])
    assert SECRET not in told
    assert cluster.settings.redis_url not in told


def test_a_store_that_is_away_is_said_without_its_password(shell: Shell) -> None:
    env = {"GRAFLOW_CELERY_REDIS_URL": "redis://:hidden-word@127.0.0.1:1/0", "GRAFLOW_CELERY_BROKER_URL": "memory://"}
    with Flower(shell, **env, GRAFLOW_CELERY_RESULT_BACKEND=shell.env["GRAFLOW_CELERY_REDIS_URL"]) as flower:
        answer = flower.browser().get("/pipelines/runs.json")
    assert answer.code == 503
    assert "127.0.0.1:1" in answer.json["error"]
    assert "hidden-word" not in answer.text


def test_the_pages_can_be_left_out(shell: Shell) -> None:
    with Flower(shell, "--no-pipelines") as flower:
        browser = flower.browser()
        assert browser.get("/pipelines").code == 404
        assert "Pipelines" not in browser.get("/workers").text
