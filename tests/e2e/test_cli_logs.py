"""Lines of nodes on real workers, of every pool: in their log, and by ``graflow-celery logs``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from graflow_celery import Run
from graflow_celery.embedded import EmbeddedCluster, EmbeddedServer
from graflow_celery.testing import embedded_cluster, wait_until
from tests.e2e.shell import Shell

CHATTY = """
    import asyncio, logging
    from celery.utils.log import get_task_logger
    from graflow_celery import task, workflow

    log = logging.getLogger("shop")

    @task
    def items():
        get_task_logger("shop.tasks").info("by Celery's logger for tasks")
        return ["a", "b"]

    @task(max_retries=1, inject_context=True)
    def load(context):
        log.info("loading", extra={"rows": 7})
        print("printed")
        if not context.retry_count:
            raise ValueError("again")

    @task
    async def fetch():
        await asyncio.sleep(0)
        log.warning("from a coroutine")

    @task
    def score(item):
        log.info("scoring %s", item)

    with workflow("chatty") as wf:
        items >> load >> fetch >> score.map(over="items")
"""


def submitted(cluster: EmbeddedCluster, shell: Shell) -> Run:
    """A run that has ended, its workers asked for no settings but the cluster's."""
    shell.write("chatty.py", CHATTY)
    run = Run.get(shell("submit", "chatty").out.strip(), cluster.settings)
    run.wait(30)
    return run


def log_of(cluster: EmbeddedCluster) -> str:
    return "".join(worker.process.log.read_text() for worker in cluster.workers)


def lines_of(shell: Shell, run: Run, *arguments: str, least: int = 1) -> list[dict[str, object]]:
    """What ``logs --json`` prints, as soon as it is as much as is expected."""
    found: list[dict[str, object]] = []

    def there() -> bool:
        answer = shell("logs", run.id, "--json", *arguments)
        assert answer.code == 0
        found[:] = [json.loads(line) for line in answer.out.splitlines()]
        return len(found) >= least

    wait_until(there, timeout=20, description="the lines to be collected")
    return found


@pytest.fixture(scope="module", params=["prefork", "threads", "gevent", "solo"])
def collecting(request: pytest.FixtureRequest) -> Iterator[EmbeddedCluster]:
    with embedded_cluster(arguments=["--pool", request.param], collect_logs=True) as cluster:
        yield cluster


@pytest.mark.workers
@pytest.mark.slow
def test_lines_name_their_node_and_are_collected(collecting: EmbeddedCluster, tmp_path: Path) -> None:
    shell = Shell(tmp_path, collecting.env)
    run = submitted(collecting, shell)
    lines = lines_of(shell, run, least=8)
    told = [(line["node"], line["attempt"], line["level"], line["message"]) for line in lines]
    assert told[0] == ("items", 1, "INFO", "by Celery's logger for tasks")
    assert [item for item in told if item[0] == "load" and item[3] in ("loading", "printed")] == [
        ("load", 1, "INFO", "loading"),
        ("load", 1, "WARNING", "printed"),
        ("load", 2, "INFO", "loading"),
        ("load", 2, "WARNING", "printed"),
    ]
    assert ("fetch", 1, "WARNING", "from a coroutine") in told
    assert {("score[0]", 1, "INFO", "scoring a"), ("score[1]", 1, "INFO", "scoring b")} <= set(told)
    assert next(line for line in lines if line["message"] == "loading")["extra"] == {"rows": 7}
    assert {line["node"] for line in lines_of(shell, run, "--node", "score")} == {"score[0]", "score[1]"}
    assert {line["node"] for line in lines_of(shell, run, "--node", "score[1]")} == {"score[1]"}
    assert [{"run": run.id, **line} for line in run.logs()] == lines
    assert sorted(line["message"] for line in run.logs(follow=True)) == sorted(str(line["message"]) for line in lines)
    followed = shell("logs", run.id, "--follow")
    assert "load #2  loading rows=7" in followed.out
    text = log_of(collecting)
    assert f"] chatty/load #1 run {run.id}: loading\n" in text
    assert f"] chatty/fetch #1 run {run.id}: from a coroutine\n" in text
    assert f"]: chatty/items #1 run {run.id}: by Celery's logger for tasks\n" in text
    assert "] celery@" not in text or "chatty/" not in text.split("ready.")[0], "lines of the worker itself have none"


@pytest.mark.workers
def test_follow_ends_with_the_run(collecting: EmbeddedCluster, tmp_path: Path) -> None:
    shell = Shell(tmp_path, collecting.env)
    shell.write("chatty.py", CHATTY)
    run_id = shell("submit", "chatty").out.strip()
    answer = shell("logs", run_id, "--follow", "--json")
    assert answer.code == 0
    assert "scoring b" in answer.out


@pytest.mark.workers
def test_json_lines_of_workers_and_nothing_is_collected_unless_it_is_asked_for(tmp_path: Path) -> None:
    with embedded_cluster(log_format="json") as cluster:
        shell = Shell(tmp_path, cluster.env)
        run = submitted(cluster, shell)
        answer = shell("logs", run.id)
        assert (answer.code, answer.out) == (0, "")
        assert "GRAFLOW_CELERY_COLLECT_LOGS=true" in answer.err
        lines = [json.loads(line) for line in log_of(cluster).splitlines() if line.startswith("{")]
        [first, _] = [line for line in lines if line["message"] == "loading"]
        assert (first["run"], first["workflow"], first["node"], first["attempt"]) == (run.id, "chatty", "load", 1)
        assert first["extra"] == {"rows": 7}
        assert "run" not in next(line for line in lines if "ready." in line["message"])


@pytest.mark.workers
def test_a_users_own_logging_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "own_logging.py").write_text(
        "import logging\n"
        "from celery.signals import setup_logging\n"
        "@setup_logging.connect\n"
        "def configure(**_):\n"
        "    logging.basicConfig(level='INFO', format='OWN %(graflow_node)s|%(message)s', force=True)\n"
    )
    env = {"CELERY_CONFIG_MODULE": "own_logging", "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    with embedded_cluster(env=env, collect_logs=True) as cluster:
        shell = Shell(tmp_path, cluster.env)
        run = submitted(cluster, shell)
        assert "OWN load|loading\n" in log_of(cluster)
        assert "Logging error" not in log_of(cluster)
        assert lines_of(shell, run, "--node", "load", least=2)


def test_a_run_that_is_not_there(server: EmbeddedServer, lonely_shell: Shell) -> None:
    lonely_shell.env["GRAFLOW_CELERY_REDIS_URL"] = server.url
    answer = lonely_shell("logs", "nobody")
    assert answer.code == 2
    assert "nobody" in answer.complaint[0]
