"""``graflow-celery explain`` and `Run.explain`: what a run waits for, what befell it, what can be done."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graflow_celery import Run, RunStatus, Settings
from graflow_celery.redis_backend.client import connect
from graflow_celery.testing import embedded_cluster, wait_until
from tests.e2e.shell import Shell
from tests.e2e.workflows import ASKING, FAILING, SLOW

pytestmark = pytest.mark.workers

QUEUES = """
    from graflow_celery import AtLeastNGroupPolicy, ParallelGroup, task, workflow
    from pathlib import Path
    from graflow_celery.testing import wait_until

    @task
    def quick():
        return 1

    @task
    def held(path=""):
        wait_until(Path(path).exists, timeout=60, description="the test to let go")
        return 2

    @task(queue="nobody")
    def elsewhere():
        return 3

    with workflow("queues") as wf:
        group = ParallelGroup([quick, held, elsewhere], name="group")
        wf.add(group.with_execution(policy=AtLeastNGroupPolicy(3), timeout=600))
"""


def submit(shell: Shell, name: str, text: str, *more: str) -> str:
    shell.write(f"{name}.py", text)
    return shell("submit", name, "--queue-anyway", *more).out.strip()


def test_a_run_says_what_runs_what_waits_and_what_its_group_needs(
    shell: Shell, graflow_settings: Settings, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    run_id = submit(shell, "queues", QUEUES, "--param", f"path={gate}")
    run = Run.get(run_id, graflow_settings)
    wait_until(
        lambda: {"running": 1, "succeeded": 1}.items() <= run.explain().counts.items(),
        description="one member to end and one to run",
    )
    found = run.explain()
    nodes = {node.node: node for node in found.nodes}
    assert set(nodes) == {"held", "elsewhere"}
    assert (nodes["held"].state, nodes["elsewhere"].state) == ("running", "queued")
    assert nodes["held"].pid is not None
    assert (nodes["held"].last_beat or 99) < 3
    assert (nodes["elsewhere"].consumers, nodes["elsewhere"].messages) == (0, 1)
    [group] = found.groups
    assert (group.members, group.ended, group.needs) == (3, 1, "at_least_n: 3 have to succeed, 2 more")
    assert group.deadlines[-1].what == "its timeout closes it"
    assert 500 < group.deadlines[-1].at - found.at < 601
    assert found.monitor is not None
    assert [item.reason for item in found.obstacles] == [
        "no live worker consumes the queue 'nobody': 1 task waits there"
    ]
    answer = shell("explain", run_id)
    assert (answer.code, answer.err) == (0, "")
    assert "graflow-celery worker -Q nobody" in answer.out
    assert any(line.startswith("held") and "last beat" in line for line in answer.out.splitlines())
    told = json.loads(shell("explain", run_id, "--json").out)
    assert [node["node"] for node in told["nodes"]] == [node.node for node in found.nodes]
    assert len(run.explain(1).nodes) == 1
    assert run.explain(1).more_nodes == 1
    gate.touch()
    run.cancel("enough")


def test_one_that_asks_names_the_command_that_answers(shell: Shell, graflow_settings: Settings) -> None:
    run_id = submit(shell, "asking", ASKING)
    run = Run.get(run_id, graflow_settings)
    wait_until(lambda: bool(run.explain().requests), description="the request")
    found = run.explain()
    [request] = found.requests
    [node] = found.nodes
    assert (node.state, node.request) == ("asking", request.id)
    assert node.deadlines[0].what == "its request counts as late"
    assert f"graflow-celery feedback answer {request.id}" in shell("explain", run_id).out
    run.cancel("enough")


def test_an_ended_run_says_what_failed_and_what_can_be_done(shell: Shell, graflow_settings: Settings) -> None:
    run_id = submit(shell, "failing", FAILING)
    run = Run.get(run_id, graflow_settings)
    assert run.wait(timeout=30) is RunStatus.FAILED
    found = run.explain()
    assert (found.nodes, found.groups, found.obstacles) == ((), (), ())
    assert [(item.node, item.attempt) for item in found.failures] == [("clean", 2)]
    assert "BadRow: 'x;y' is no row" in found.failures[0].error
    assert [item.event for item in found.happenings] == ["node_retried", "node_failed", "run_failed"]
    assert f"graflow-celery retry {run_id}" in shell("explain", run_id).out


def test_a_lost_worker_is_told_of_with_the_reason(tmp_path: Path) -> None:
    with embedded_cluster(workers=1, concurrency=1) as cluster:
        shell = Shell(tmp_path, cluster.env)
        run_id = submit(shell, "slow", SLOW, "--param", "seconds=60")
        run = Run.get(run_id, cluster.settings)
        wait_until(lambda: run.explain().counts.get("running") == 1, description="the task to run")
        cluster.workers[0].kill()
        cluster.workers[0].start()
        wait_until(
            lambda: [(node.state, node.attempt) for node in run.explain().nodes] == [("running", 2)],
            timeout=30,
            description="the task to run again",
        )
        found = run.explain()
        assert (found.nodes[0].attempt, found.nodes[0].losses) == (2, 1)
        [lost] = [item for item in found.happenings if item.event == "node_lost"]
        assert "worker1@" in lost.reason
        assert "while it ran" in lost.reason
        assert "loss 1 of 3" in shell("explain", run_id).out
        run.cancel("enough")


@pytest.mark.parametrize("over", [False, True])
def test_a_run_whose_graph_is_gone_says_so_and_what_is_known_all_the_same(over: bool, tmp_path: Path) -> None:
    with embedded_cluster(workers=1, concurrency=1) as cluster:
        shell = Shell(tmp_path, cluster.env)
        run_id = submit(shell, "failing", FAILING) if over else submit(shell, "asking", ASKING)
        run = Run.get(run_id, cluster.settings)
        wait_until(lambda: run.status.is_terminal if over else bool(run.explain().requests), description="it to stand")
        cluster.workers.stop(20)
        store = connect(cluster.settings.redis_url)
        store.delete(*store.keys("*:blob:*"))
        answer = shell("explain", run_id)
        assert (answer.code, answer.err) == (0, "")
        assert "its graph is not in the store any more" in answer.out
        assert "as a new run" in answer.out
        told = json.loads(shell("explain", run_id, "--json").out)
        if over:
            assert (told["status"], told["counts"]) == ("failed", {"succeeded": 1, "failed": 1})
            assert [failure["node"] for failure in told["failures"]] == ["clean"]
            assert "graflow-celery retry" not in answer.out
        else:
            assert (told["status"], len(told["requests"])) == ("running", 1)


def test_a_run_that_is_not_there(shell: Shell) -> None:
    answer = shell("explain", "no-such-run")
    assert answer.code == 2
    assert answer.complaint[0].startswith("error: No run 'no-such-run'")
