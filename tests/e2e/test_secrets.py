"""Signed content on workers: a secret is replaced while runs go on, a wrong one is told of, and none is ever shown."""

from __future__ import annotations

import itertools
import json
import logging
import secrets
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from graflow_celery import Settings, task, workflow
from graflow_celery.celery_backend import trust
from graflow_celery.core.state import RunStatus
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.embedded.process import GuardedProcess
from graflow_celery.embedded.workers import EmbeddedWorkers
from graflow_celery.environment import settings_environment, worker_environment
from graflow_celery.errors import BlobRejectedError
from graflow_celery.runs import Run, client_runtime
from graflow_celery.settings import load_settings
from tests.e2e import trusting
from tests.e2e.shell import Shell

pytestmark = pytest.mark.workers
OLD, NEW, OTHER = (f"secret-{name}-{secrets.token_hex(8)}" for name in ("old", "new", "other"))
#: The steps of config/graflow.toml: which secret signs, and which are accepted beside it.
STEPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "old": (OLD, ()),
    "added": (OLD, (NEW,)),
    "exchanged": (NEW, (OLD,)),
    "new": (NEW, ()),
}


@dataclass
class Deployment:
    """A server, and for each step a worker that consumes a queue of the step's name."""

    server: EmbeddedServer
    workers: dict[str, EmbeddedWorkers]

    def settings(self, step: str, **more: Any) -> Settings:
        secret, accepted = STEPS.get(step, (OTHER, ()))
        own = {"redis_url": self.server.url, "secret_key": secret, "secret_keys_accepted": accepted}
        return load_settings(**own, **more)

    def log(self, step: str) -> str:
        return self.workers[step][0].process.output()


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    with ExitStack() as stack:
        made = Deployment(stack.enter_context(EmbeddedServer()), {})
        for step in (*STEPS, "wrong"):
            made.workers[step] = EmbeddedWorkers(made.settings(step), 1, queues=[step])
        try:
            for workers in made.workers.values():
                workers[0].start()
            for workers in made.workers.values():
                workers.wait_ready()
            yield made
        finally:
            for workers in made.workers.values():
                workers.stop(grace=5.0)


def submitted(deployment: Deployment, client: str, *queues: str, **options: Any) -> Run:
    """A run whose functions, values and exceptions pass from worker to worker, each with the secrets of its step."""
    with workflow("passes") as wf:
        tasks = [trusting.on(q, f) for q, f in zip(queues, STAGES, strict=False)]
        for one, other in itertools.pairwise(tasks):
            one >> other
    return wf.submit(settings=deployment.settings(client), **options)


STAGES = (trusting.large, trusting.follow, trusting.finish)


def test_a_secret_is_replaced_while_runs_go_on(deployment: Deployment) -> None:
    """Each step everywhere before the next begins: whoever takes part is one step from the others at most."""
    for client, queues in (
        ("old", ("old", "old", "old")),
        ("old", ("added", "old", "added")),
        ("added", ("added", "old", "added")),
        ("added", ("added", "exchanged", "added")),
        ("added", ("exchanged", "added", "exchanged")),
        ("exchanged", ("added", "exchanged", "added")),
        ("exchanged", ("exchanged", "new", "exchanged")),
        ("new", ("exchanged", "new", "exchanged")),
        ("new", ("new", "new", "new")),
    ):
        mark = secrets.token_hex(4)  # a blob of an earlier run is signed as it was then
        run = submitted(deployment, client, *queues, initial_channel={"value": mark})
        assert run.wait(timeout=30) is RunStatus.SUCCEEDED, (client, queues, run.reason)
        assert run.result("finish") == (f"{mark}yz", 200_000), (client, queues)
        assert run.result("large")["pair"][1] == b"\0\1" * 100_000


def test_the_last_step_too_early_is_an_error_that_says_what_to_do(deployment: Deployment) -> None:
    """A blob that was signed with the old secret is still there when the old one is not accepted any more."""
    run = submitted(deployment, "added", "added", "exchanged", "new", initial_channel={"value": secrets.token_hex(4)})
    assert run.wait(timeout=30) is RunStatus.FAILED
    assert "signature of" in run.reason
    assert "an old one belongs into GRAFLOW_CELERY_SECRET_KEYS_ACCEPTED" in run.reason


def test_a_worker_with_another_secret_unpickles_nothing_and_says_why(deployment: Deployment) -> None:
    run = submitted(deployment, "old", "wrong", initial_channel={"value": "x"})
    assert run.wait(timeout=30) is RunStatus.FAILED
    assert f"Graph {run.graph_hash} of run {run.id}: The signature of this reference is wrong" in run.reason
    assert "Set the same GRAFLOW_CELERY_SECRET_KEY on clients and workers" in run.reason
    assert not run.results()


def test_values_of_who_does_not_know_the_secret_are_refused_unread(deployment: Deployment, tmp_path: Path) -> None:
    """The run is ours; what lies in its channel is of somebody with another secret, or none."""

    class Marker:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "unpickled"), "w"))

    for step, said in (("wrong", "signature of"), ("", "is not signed")):
        forger = deployment.settings(step) if step else load_settings(redis_url=deployment.server.url)
        for size in (10, 200_000):
            held = f"held-{secrets.token_hex(4)}"
            with workflow("waits") as wf:
                trusting.on(held, trusting.plain) >> trusting.on("old", trusting.given)
            run = wf.submit(settings=deployment.settings("old"))
            client_runtime(forger).channel(run.id).set("value", (Marker(), secrets.token_bytes(size)))
            mine = client_runtime(deployment.settings("old")).channel(run.id)
            with pytest.raises(BlobRejectedError, match=said):
                mine.get("value")
            run.cancel()
    assert not (tmp_path / "unpickled").exists()


def test_an_exceptions_pickle_is_signed(deployment: Deployment) -> None:
    with workflow("refuses") as wf:
        trusting.on("added", trusting.refuse)
    run = wf.submit(settings=deployment.settings("added"))
    run.wait(timeout=30)
    with pytest.raises(trusting.Refusal, match="not today"):
        run.result()
    runtime = client_runtime(deployment.settings("wrong"))
    error = runtime.store.error(run._run, "refuse")
    assert "Refusal" in str(error)
    assert not isinstance(error, trusting.Refusal), "its pickle was not touched"


def test_no_secret_is_shown(deployment: Deployment) -> None:
    """Not in a log, an error, a message, a record in the store; what is shown says how many there are."""
    wf_run = submitted(deployment, "added", "added", "exchanged", "added", initial_channel={"value": "v"})
    wf_run.wait(timeout=30)
    client = client_runtime(deployment.settings("added")).client
    shown = [deployment.log(step) for step in deployment.workers]
    for key in client.scan_iter("*"):
        shown.append(key.decode())
        shown.append(repr(client.dump(key)))
    settings = deployment.settings("exchanged")
    runtime = client_runtime(settings)
    shown += [repr(settings), str(settings), repr(runtime.codec), repr(runtime.codec._seal), repr(vars(runtime))]
    shown += [json.dumps(settings.masked()), repr(runtime.app.conf.humanize(with_defaults=True))]
    for text in shown:
        assert not any(secret in text for secret in (OLD, NEW, OTHER))
    assert settings.masked()["secret_keys_accepted"] == "(1 set)"


def test_doctor_counts_the_accepted_secrets(deployment: Deployment, tmp_path: Path) -> None:
    shell = Shell(tmp_path, settings_environment(deployment.settings("exchanged", queue="exchanged")))
    answer = shell("doctor")
    assert "set: content is signed, and unsigned content is refused; 1 further secret accepted beside it" in answer.out
    for secret in (OLD, NEW):
        assert secret not in answer.out + answer.err + shell("doctor", "--json").out


# --- what a worker says at its start ----------------------------------------------------------------------------


def warnings(caplog: pytest.LogCaptureFixture, app: Celery, settings: Settings) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        trust.warn(app, settings)
    return caplog.messages


def test_a_worker_says_what_is_open(caplog: pytest.LogCaptureFixture, deployment: Deployment) -> None:
    app = Celery("owner", broker="memory://", set_as_current=False)
    secret = load_settings(redis_url="redis://db:6379", secret_key=NEW)
    assert warnings(caplog, app, secret) == []
    [said] = warnings(caplog, app, load_settings(redis_url="redis://db:6379"))
    assert "no secret_key is set" in said
    assert "GRAFLOW_CELERY_SECRET_KEY" in said
    # The embedded server's socket is this user's alone.
    assert warnings(caplog, app, load_settings(redis_url=deployment.server.url)) == []
    open_app = Celery("open", broker="memory://", set_as_current=False)
    open_app.conf.accept_content = ["json", "pickle"]
    [said] = warnings(caplog, open_app, secret)
    assert "accept_content has pickle" in said


def test_a_worker_on_a_server_that_others_reach_says_so_once() -> None:
    with EmbeddedServer() as server:
        server.socket.chmod(0o666)
        with EmbeddedWorkers(load_settings(redis_url=server.url), 1) as workers:
            log = workers[0].process.output()
    assert log.count("no secret_key is set: whoever can write to the store can make this worker run code") == 1


@pytest.mark.parametrize(("accepts", "count"), [("json,pickle", 1), ("json", 0)])
def test_a_worker_of_an_app_that_takes_pickles_says_so_once(tmp_path: Path, accepts: str, count: int) -> None:
    with EmbeddedServer() as server:
        settings = load_settings(redis_url=server.url, secret_key=NEW)
        command = [sys.executable, "-m", "celery", "-A", "tests.e2e.owners_app", "worker", "--concurrency", "2"]
        env = worker_environment(settings, {"OWNER_ACCEPTS": accepts, "C_FORCE_ROOT": "1"})
        worker = GuardedProcess("The owner's worker", command, log=tmp_path / "worker.log", env=env)
        worker.start()
        try:
            with workflow("of the owner") as wf:
                wf.add(task("one")(lambda: 1))
            assert wf.submit(settings=settings).wait(timeout=30) is RunStatus.SUCCEEDED
        finally:
            worker.stop(grace=5.0)
        said = "this app's accept_content has pickle: whoever can write to the broker can make this worker run code"
        assert worker.output().count(said) == count
        assert "no secret_key is set" not in worker.output()


def test_an_embedded_worker_says_nothing_of_it(graflow_cluster: Any) -> None:
    assert "secret_key" not in graflow_cluster.workers[0].process.output()
