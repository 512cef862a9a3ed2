"""What travels: messages that carry references alone, and a graph that is uploaded once, whoever submits it."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from graflow_celery import Settings, WorkflowContext, task, workflow
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.runs import client_runtime
from graflow_celery.settings import load_settings
from graflow_celery.testing import wait_until
from tests.bench.content.flows import long_names, nested
from tests.bench.speed.flows import fan_out
from tests.large_messages import LARGEST, NotWatchedError, Timetable, Watch

pytestmark = pytest.mark.workers


def messages_of(wf: WorkflowContext, settings: Settings) -> list[bytes]:
    """The messages that a submit of the workflow sends to a queue that nobody consumes."""
    queue = f"unserved-{secrets.token_hex(4)}"
    unserved = settings.model_copy(update={"queue": queue})
    run = wf.submit(settings=unserved)
    client = client_runtime(unserved).client
    try:
        return [bytes(message) for message in client.lrange(queue, 0, -1)]
    finally:
        run.cancel()
        client.delete(queue)


def members_of(message: bytes) -> int:
    """How many attempts a message is for."""
    attempt = json.loads(json.loads(message)["body"])[0][3]
    return attempt[1] if isinstance(attempt, list) else 1


@pytest.mark.parametrize("batch", [1, "auto"])
def test_a_message_is_json_of_at_most_a_kilobyte(batch: int | str, graflow_settings: Settings) -> None:
    messages = messages_of(fan_out(1000), graflow_settings.model_copy(update={"batch": batch}))
    assert sum(map(members_of, messages)) == 1000
    assert len(messages) == 1000 if batch == 1 else len(messages) < 100
    assert max(map(len, messages)) <= LARGEST
    assert all(json.loads(message)["content-type"] == "application/json" for message in messages)


def test_the_users_data_does_not_change_a_messages_size(graflow_settings: Settings) -> None:
    @task
    def swallow(data: bytes) -> int:
        return len(data)

    with workflow("small") as small:
        swallow(task_id="one", data=b"x") | swallow(task_id="two", data=b"x")
    with workflow("large") as large:
        swallow(task_id="one", data=b"x" * 5_000_000) | swallow(task_id="two", data=b"y" * 5_000_000)
    sizes = [max(map(len, messages_of(wf, graflow_settings))) for wf in (small, large)]
    assert max(sizes) <= LARGEST
    assert abs(sizes[0] - sizes[1]) < 16


def test_a_group_in_a_group_in_a_group_has_no_larger_messages(graflow_settings: Settings) -> None:
    """Each barrier is the body of a chord, which is part of the chord around it."""
    sizes = [max(map(len, messages_of(nested("messages", depth), graflow_settings))) for depth in (1, 6)]
    assert sizes[0] == sizes[1] <= LARGEST


def test_an_id_of_a_hundred_characters_keeps_to_the_bound(graflow_settings: Settings) -> None:
    assert max(map(len, messages_of(long_names("messages", 100), graflow_settings))) <= LARGEST


def test_the_watch_over_the_suite_finds_what_is_too_large(server: EmbeddedServer) -> None:
    settings = load_settings(redis_url=server.url, broker_url="", result_backend="")
    timetable = Timetable()
    try:
        watch = Watch(server.url, timetable)
    except NotWatchedError as reason:
        pytest.skip(str(reason))
    timetable.begin("the test of small messages")
    messages_of(long_names("watched", 20), settings)
    assert watch.found() == []
    timetable.begin("the test of large messages")
    message = max(messages_of(long_names("watched", 2000), settings), key=len)
    (found,) = watch.found()
    assert (found.size, found.test) == (len(message), "the test of large messages")
    assert json.loads(message)["headers"]["root_id"] in found.begins


def test_a_graph_is_uploaded_once_by_whoever_comes_first(graflow_environment: dict[str, str], tmp_path: Path) -> None:
    script = tmp_path / "uploads.py"
    mark = secrets.token_hex(8)
    script.write_text(
        "from graflow_celery import ParallelGroup, task, workflow\n"
        "@task\n"
        f"def member(index): return [index, '{mark}', LIMIT]\n"
        "LIMIT = {'b', 'a', 'c'}\n"
        "with workflow('uploads') as wf:\n"
        "    ParallelGroup([member(task_id=f'm{i}', index=i) for i in range(20)], name='members')\n"
        "run = wf.submit()\n"
        "run.wait(timeout=60)\n"
        "print(run.graph_hash, run.uploaded_blobs, run.status)\n"
    )
    seen = []
    for seed in ("1", "2", "3"):
        environment = {**os.environ, **graflow_environment, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        seen.append(done.stdout.split())
    assert len({line[0] for line in seen}) == 1, "the same source has the same hash in every process"
    assert [line[1] for line in seen] == ["2", "0", "0"], "one function and one manifest, once"
    assert {line[2] for line in seen} == {"succeeded"}


def test_one_changed_task_of_many_uploads_itself_and_the_manifest(graflow_settings: Settings) -> None:
    mark = secrets.token_hex(8)

    def build(factor: int) -> WorkflowContext:
        with workflow("versions") as wf:

            @task
            def changed() -> int:
                return factor

            @task
            def same() -> str:
                return mark

            changed >> (same(task_id="s1") | same(task_id="s2"))
        return wf

    first, second = (build(factor).submit(settings=graflow_settings) for factor in (1, 2))
    for run in (first, second):
        run.wait(timeout=60)
    assert (first.uploaded_blobs, second.uploaded_blobs) == (3, 2)
    wait_until(lambda: first.result("changed") == 1 and second.result("changed") == 2, description="both results")
