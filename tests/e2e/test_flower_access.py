"""Whose Flower has our pages, and who gets in where it asks somebody else who people are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from graflow_celery import Run
from graflow_celery.embedded import EmbeddedCluster
from graflow_celery.testing import embedded_cluster, wait_until
from tests.e2e import flower_flows
from tests.e2e.flower import Browser, Flower, Page
from tests.e2e.markdown import ROOT
from tests.e2e.shell import Shell

pytestmark = pytest.mark.workers
pytest.importorskip("flower")
create_signed_value = pytest.importorskip("tornado.web").create_signed_value

COOKIES, CLIENT_SECRET = "signs-the-cookies", "shared-with-the-provider"
OAUTH = (
    "--auth=ann@example.com",
    "--auth_provider=flower.views.auth.GithubLoginHandler",
    "--oauth2_key=flower-at-work",
    f"--oauth2_secret={CLIENT_SECRET}",
    "--oauth2_redirect_uri=http://127.0.0.1/ops/login",
    f"--cookie_secret={COOKIES}",
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    with embedded_cluster(arguments=["-E"], concurrency=2) as started:
        yield started


@pytest.fixture(scope="module")
def shell(cluster: EmbeddedCluster, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(tmp_path_factory.mktemp("flower"), cluster.env)


@pytest.fixture(scope="module")
def submit(cluster: EmbeddedCluster) -> Callable[[str], Run]:
    return lambda name: getattr(flower_flows, name).submit(settings=cluster.settings)


@pytest.fixture(scope="module")
def guarded(shell: Shell) -> Iterator[Flower]:
    """One whose users another site knows, at a path of its own."""
    with Flower(shell, *OAUTH, prefix="/ops") as started:
        yield started


def logged_in(flower: Flower, name: str, secret: str = COOKIES) -> Browser:
    """The browser of somebody who came back from the provider."""
    return flower.browser({"Cookie": f"user={create_signed_value(secret, 'user', name).decode()}"})


def test_the_flower_of_an_owners_app_has_the_pages(shell: Shell, submit: Callable[[str], Run]) -> None:
    run = submit("adding")
    run.wait(timeout=30)
    program = (sys.executable, "-m", "celery", "-A", "tests.e2e.owners_app")
    owner = {"OWNER_ACCEPTS": "json", "PYTHONPATH": str(ROOT), "FLOWER_UNAUTHENTICATED_API": "true"}
    with Flower(shell, program=program, **owner) as flower:
        browser = flower.browser()
        assert 'href="/pipelines"' in browser.get("/workers").text
        assert browser.get("/pipelines").code == 200
        assert browser.get(f"/pipelines/run/{run.id}").code == 200
        [row] = browser.get("/pipelines/runs.json", text=run.id).json["runs"]
        assert (row["workflow"], row["status"]) == ("adding", "succeeded")
        assert "graflow_runs_total" in browser.get("/metrics").text
        started = submit("adding")
        wait_until(lambda: started.id in browser.get("/api/tasks").text, timeout=20, description="Flower to hear of it")


def test_who_has_not_logged_in_is_sent_to_the_provider_and_told_nothing(
    guarded: Flower, submit: Callable[[str], Run]
) -> None:
    run = submit("endless")
    base = f"/pipelines/run/{run.id}"
    strangers = {
        "nobody": guarded.browser(),
        "somebody else": logged_in(guarded, "eve@example.com"),
        "a forger": logged_in(guarded, "ann@example.com", "another-secret"),
        "of another kind": guarded.browser({"Authorization": "Basic YW5uOnBhc3M="}),
    }
    for who, stranger in strangers.items():
        for path in ("/pipelines", "/pipelines/", base):
            page = stranger.get(path)
            assert page.code == 302, (who, path)
            assert page.headers["Location"].startswith("/ops/login?next="), (who, path)
            assert tells_nothing(page, run)
        for path in ("/pipelines/runs.json", f"{base}/graph.json", f"{base}/changes.json", f"{base}/node.json"):
            page = stranger.get(path, key="slow")
            assert page.code == 401, (who, path)
            assert "log in" in page.json["error"]
            assert "WWW-Authenticate" not in page.headers, "a browser would ask for a password that there is not"
            assert tells_nothing(page, run)
        for action in ("cancel", "retry", "answer"):
            assert stranger.post(f"{base}/{action}", {"_xsrf": "made-up"}).code in (401, 403), (who, action)
    login = guarded.browser().get("/login")
    assert login.code == 302
    assert login.headers["Location"].startswith("https://github.com/login/oauth/authorize?")
    assert CLIENT_SECRET not in login.headers["Location"]
    assert str(run.status) == "running"
    run.cancel()


def tells_nothing(page: Page, run: Run) -> bool:
    """Of runs. Its own address is the asker's."""
    return "endless" not in page.text and "slow" not in page.text and CLIENT_SECRET not in page.text


def test_who_has_logged_in_sees_and_acts_under_that_name(guarded: Flower, submit: Callable[[str], Run]) -> None:
    run = submit("endless")
    ann = logged_in(guarded, "ann@example.com")
    page = ann.get(f"/pipelines/run/{run.id}")
    assert page.code == 200
    assert 'id="cancel"' in page.text
    address = f"/pipelines/run/{run.id}/cancel"
    token = page.headers["Set-Cookie"].partition("_xsrf=")[2].partition(";")[0]
    assert ann.post(address, {}).code == 403, "without the token of the page"
    ann.headers["Cookie"] += f"; _xsrf={token}"
    assert ann.post(address, {"_xsrf": token}, {"Sec-Fetch-Site": "cross-site"}).code == 403
    assert ann.post(address, {"_xsrf": token}).json == {"said": "Cancelled."}
    assert run.reason == "cancelled in Flower by ann@example.com"


def test_the_scripts_are_no_secret_and_hold_none(guarded: Flower) -> None:
    """Flower's own static files are open as well."""
    directory = Path(flower_flows.__file__).parents[2] / "graflow_celery" / "flower_pages" / "static"
    for path in directory.iterdir():
        page = guarded.browser().get(f"/pipelines/static/{path.name}")
        assert page.text == path.read_text(encoding="utf-8")
