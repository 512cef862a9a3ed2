"""``graflow-celery gc``: what no run refers to goes, whatever a run needs stays."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

import pytest

from graflow_celery import Settings, WorkflowContext, task, workflow
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.runs import Run, client_runtime
from graflow_celery.settings import load_settings
from tests.e2e.shell import Shell


def adding(number: int) -> WorkflowContext:
    @task
    def add(words: bytes) -> int:
        return len(words) + number

    with workflow(f"adding {number}") as wf:
        wf.add(add)
    return wf


def submitted(settings: Settings, number: int) -> Run:
    return adding(number).submit(settings=settings, initial_channel={"words": os.urandom(100_000)})


def forget(run: Run) -> None:
    """As if the run's keys had expired."""
    runtime = run._runtime
    runtime.client.delete(*runtime.keys.run(run.id).all())
    runtime.client.zrem(runtime.keys.runs, run.id)


def blobs(settings: Settings) -> set[str]:
    runtime = client_runtime(settings)
    return {key.decode() for key in runtime.client.keys(f"{runtime.keys.prefix}:blob:*")}


def cleaned(shell: Shell, *arguments: str, code: int = 0) -> dict[str, Any]:
    ran = shell("gc", "--json", *arguments)
    assert ran.code == code, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    return found


@pytest.fixture
def settings(server: EmbeddedServer) -> Settings:
    return load_settings(redis_url=server.url)


@pytest.fixture
def mine(server: EmbeddedServer, tmp_path: Path) -> Shell:
    return Shell(tmp_path, {"GRAFLOW_CELERY_REDIS_URL": server.url})


def test_it_removes_what_no_run_refers_to(settings: Settings, mine: Shell) -> None:
    goes_on, ended, gone = (submitted(settings, number) for number in range(3))
    ended.cancel()
    before = blobs(settings)
    assert cleaned(mine, "--older-than", "0")["removed"] == []
    forget(gone)
    found = cleaned(mine)
    assert (found["removed"], found["young"], found["runs"]) == ([], 3, 2), "it was uploaded just now"
    dry = cleaned(mine, "--dry-run", "--older-than", "0")
    assert [dry["dry_run"], len(dry["removed"]), dry["kept"], dry["young"]] == [True, 3, 6, 0]
    assert blobs(settings) == before
    ran = mine("gc", "--older-than", "0")
    assert "kept" in ran.out
    assert "6 blobs" in ran.out
    assert "removed" in ran.out
    assert len(blobs(settings)) == 6
    assert len(before - blobs(settings)) == 3
    retried = ended.retry_failed()
    assert retried.again == ("add",)
    assert goes_on.context.get_channel().get("words") is not None
    runtime = client_runtime(settings)
    assert len(runtime.client.keys(f"{runtime.keys.prefix}:holders:*")) == 2


def test_a_graph_that_cannot_be_read_keeps_everything(server: EmbeddedServer, tmp_path: Path) -> None:
    settings = load_settings(redis_url=server.url, secret_key=secrets.token_hex(16))
    kept, gone = submitted(settings, 1), submitted(settings, 2)
    forget(gone)
    before = blobs(settings)
    url = {"GRAFLOW_CELERY_REDIS_URL": server.url}
    other = Shell(tmp_path, {**url, "GRAFLOW_CELERY_SECRET_KEY": secrets.token_hex(16)})
    found = cleaned(other, "--older-than", "0", code=1)
    assert list(found["unreadable"]) == [kept.id]
    assert found["dry_run"]
    assert blobs(settings) == before
    ran = other("gc", "--older-than", "0")
    assert ran.code == 1
    assert f"The graph of run {kept.id} cannot be read" in ran.err
    assert "Nothing was removed" in ran.err


def test_a_run_that_lacks_a_part_of_its_graph_is_told_of(settings: Settings, mine: Shell) -> None:
    run, gone = submitted(settings, 1), submitted(settings, 2)
    forget(gone)
    runtime = client_runtime(settings)
    runtime.client.delete(runtime.keys.blob(run.graph_hash))
    found = cleaned(mine, "--older-than", "0")
    assert list(found["incomplete"]) == [run.id]
    assert runtime.holdings.of(run.id).values[0] in {name.rpartition(":")[2] for name in blobs(settings)}


def test_what_is_taken_hold_of_or_renewed_meanwhile_stays(settings: Settings) -> None:
    gone = submitted(settings, 1)
    runtime = client_runtime(settings)
    [name] = runtime.holdings.of(gone.id).values
    forget(gone)
    found = runtime.garbage.clean(0, dry_run=True).removed
    old = {blob: [f"{gone.id}~1"] for blob in found}
    runtime.client.expire(runtime.keys.blob(gone.graph_hash), runtime.content.ttl - 100)
    other = submitted(settings, 2)
    runtime.holdings.hold(other._run, [name])
    assert gone.graph_hash not in [blob.name for blob in runtime.garbage._removed(old, 200)]
    left = {key.rpartition(":")[2] for key in blobs(settings)}
    assert {name, gone.graph_hash} <= left


def test_added_tasks_belong_to_the_run(settings: Settings) -> None:
    run = submitted(settings, 1)
    runtime = client_runtime(settings)
    with workflow("more") as more:
        more.add(task(id="more")(lambda: 1))
    added = more.submit(settings=settings)
    with runtime.client.pipeline(transaction=False) as pipe:
        runtime.holdings.add_graph(pipe, run._run, added.graph_hash)
        pipe.execute()
    forget(added)
    assert runtime.garbage.clean(0, dry_run=False).removed == []
    forget(run)
    assert len(runtime.garbage.clean(0, dry_run=False).removed) == 5
