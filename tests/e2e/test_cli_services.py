"""``graflow-celery worker``, ``monitor``, ``flower`` and ``doctor``."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from pathlib import Path

import pytest
import redis

from graflow_celery.embedded import EmbeddedServer
from graflow_celery.redis_backend.client import Scripts, connect
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.liveness import Liveness, WorkerLease
from graflow_celery.testing import wait_until
from tests.e2e.shell import Shell
from tests.e2e.workflows import GREETING

OWN_WORKER = ("worker", "--pool", "solo", "--without-mingle", "--without-gossip", "-n", "mine@%h", "-l", "INFO")


@pytest.fixture
def server_shell(server: EmbeddedServer, lonely_shell: Shell) -> Shell:
    """A shell with a server of the test's own, without workers."""
    lonely_shell.env["GRAFLOW_CELERY_REDIS_URL"] = server.url
    return lonely_shell


def celery_config(shell: Shell, module: str) -> dict[str, str]:
    """The variables with which Celery finds a module of settings that lies in the shell's directory."""
    path = os.pathsep.join([str(shell.home), shell.env.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path, "CELERY_CONFIG_MODULE": module}


@pytest.mark.workers
def test_a_worker_runs_what_is_submitted_and_ends_when_asked_to(server_shell: Shell) -> None:
    server_shell.write("greeting.py", GREETING)
    before = server_shell("doctor")
    assert before.code == 3
    assert "fail  workers         none is alive" in before.out
    with server_shell.start(*OWN_WORKER) as worker:
        worker.says("ready.")
        run_id = server_shell("submit", "greeting", "--queue-anyway").out.strip()
        assert server_shell("watch", run_id).code == 0
        after = server_shell("doctor")
        assert (after.code, after.err) == (0, "")
        assert "ok    default queue   'celery' is consumed" in after.out
        assert "mine@" in after.out
        assert "warn  pool            solo (mine@" in after.out
        assert "no task that runs can be ended" in after.out
        worker.process.send_signal(signal.SIGTERM)
        assert worker.wait(20).code == 0
        assert worker.left_running() == []


def test_a_worker_with_a_wrong_setting_says_so(lonely_shell: Shell) -> None:
    answer = lonely_shell("worker", GRAFLOW_CELERY_MAX_LOSSES="none")
    assert answer.code == 2
    assert "GRAFLOW_CELERY_MAX_LOSSES" in answer.complaint[0]


def test_the_arguments_of_a_worker_are_celerys(lonely_shell: Shell) -> None:
    assert "--concurrency" in lonely_shell("worker", "--help").out


def test_a_monitor_leads_until_it_is_told_to_end(server_shell: Shell) -> None:
    with server_shell.start("monitor") as first:
        first.says("leads the monitors")
        with server_shell.start("monitor") as second:
            second.says("stands by: another monitor leads")
            second.interrupt(signal.SIGTERM)
            assert second.wait(10).code == 0
        first.process.send_signal(signal.SIGTERM)
        answer = first.wait(10)
    assert (answer.code, answer.out) == (0, "")
    assert "Traceback" not in answer.err


def test_a_monitor_outlives_its_server(lonely_shell: Shell, tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "data") as server:
        lonely_shell.env["GRAFLOW_CELERY_REDIS_URL"] = server.url
        with lonely_shell.start("monitor") as monitor:
            monitor.says("leads the monitors")
            server.kill()
            monitor.says("the server went away", timeout=30)
            server.start()
            monitor.says("the server answers again", timeout=30)
            monitor.process.send_signal(signal.SIGTERM)
            answer = monitor.wait(10)
    assert answer.code == 0
    assert answer.err.count("went away") == 1
    assert "Traceback" not in answer.err


def test_flower_is_celerys(lonely_shell: Shell) -> None:
    if importlib.util.find_spec("flower") is None:
        answer = lonely_shell("flower")
        assert answer.code == 3
        assert "pip install 'graflow-celery[flower]'" in answer.complaint[0]
    else:
        assert "celery flower" in lonely_shell("flower", "--help").out


@pytest.mark.workers
def test_doctor_is_content_with_a_cluster(shell: Shell) -> None:
    answer = shell("doctor", GRAFLOW_CELERY_SECRET_KEY="very secret")
    assert (answer.code, answer.err) == (0, "")
    assert "very secret" not in answer.out
    told = json.loads(shell("doctor", "--json").out)
    states = {finding["about"]: finding["state"] for finding in told["findings"]}
    assert set(states.values()) <= {"ok", "warn"}
    assert states["secret_key"] == "warn"
    assert [worker["queues"] for worker in told["workers"]] == [["celery"]]
    assert told["settings"]["secret_key"] == "(not set)"
    looked_at = {"clock", "redelivery", "leases", "death watch", "monitor", "runs", "eviction", "persistence"}
    assert looked_at <= states.keys()
    assert "redelivery" not in {name for name, state in states.items() if state != "ok"}


def test_doctor_tells_of_workers_that_unpickle_messages(server: EmbeddedServer, tmp_path: Path) -> None:
    client = connect(server.url)
    lease = WorkerLease("owner@host", ("celery",), 1, 1, accepts_pickle=True)
    Liveness(client, Scripts(client), Keys("graflow"), 60.0).beat(lease)
    answer = Shell(tmp_path, {"GRAFLOW_CELERY_REDIS_URL": server.url, "GRAFLOW_CELERY_HEARTBEAT_TIMEOUT": "60"})(
        "doctor"
    )
    assert (
        "warn  accept_content  owner@host: accept_content has pickle, so whoever can write to the broker" in answer.out
    )


def test_doctor_says_what_is_missing_and_what_to_do(lonely_shell: Shell) -> None:
    lonely_shell.env["GRAFLOW_CELERY_BROKER_URL"] = "amqp://me:secret@127.0.0.1:1//"
    answer = lonely_shell("doctor")
    assert answer.code == 3
    assert "fail  server          nothing answers at redis://127.0.0.1:1/0" in answer.out
    assert "fail  broker          nothing answers at amqp://me:***@127.0.0.1:1//" in answer.out
    assert "GRAFLOW_CELERY_REDIS_URL" in answer.out
    assert "secret@" not in answer.out


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("BROKER_URL", "carrier-pigeon://x", "No such transport"),
        ("RESULT_BACKEND", "carrier-pigeon://x", "Celery cannot use carrier-pigeon://x"),
        ("REDIS_URL", "http://x", "GRAFLOW_CELERY_REDIS_URL"),
    ],
)
def test_doctor_names_the_setting_that_is_wrong(server_shell: Shell, name: str, value: str, said: str) -> None:
    server_shell.env[f"GRAFLOW_CELERY_{name}"] = value
    answer = server_shell("doctor")
    assert answer.code == 3
    assert any(line.startswith("fail") and said in line for line in answer.out.splitlines())


def test_doctor_warns_of_a_server_that_may_evict(server: EmbeddedServer, server_shell: Shell) -> None:
    client = redis.Redis.from_url(server.url)
    for policy, state in (("volatile-lru", "warn"), ("allkeys-lru", "fail"), ("noeviction", "ok")):
        client.config_set("maxmemory-policy", policy)
        answer = server_shell("doctor", "--json")
        told = {finding["about"]: finding["state"] for finding in json.loads(answer.out)["findings"]}
        assert told["eviction"] == state
    client.close()


@pytest.mark.workers
def test_doctor_tells_of_runs_that_stall_and_of_workers_that_cannot_do_all(server_shell: Shell) -> None:
    server_shell.write("greeting.py", GREETING)
    server_shell.write("deaf.py", "worker_enable_remote_control = False\n")
    server_shell.env |= {"GRAFLOW_CELERY_DEATH_WATCH": "false", **celery_config(server_shell, "deaf")}
    with server_shell.start(*OWN_WORKER, "-Q", "other") as worker:
        worker.says("ready.")
        run_id = server_shell("submit", "greeting", "--queue-anyway").out.strip()
        answer = server_shell("doctor", "--json")
        assert answer.code == 3
        told = {finding["about"]: finding for finding in json.loads(answer.out)["findings"]}
        assert "no live worker consumes the queue 'celery': 1 task waits there" in told["runs"]["text"]
        assert told["runs"]["remedy"] == f"See: graflow-celery explain {run_id}"
        assert {told[about]["state"] for about in ("runs", "control", "death watch", "pool")} == {"warn"}


@pytest.mark.workers
def test_doctor_warns_of_a_lease_that_is_late(server_shell: Shell) -> None:
    server_shell.env |= {"GRAFLOW_CELERY_HEARTBEAT_TIMEOUT": "60", "GRAFLOW_CELERY_HEARTBEAT_INTERVAL": "0.5"}
    with server_shell.start(*OWN_WORKER) as worker:
        worker.says("ready.")
        assert "ok    leases" in server_shell("doctor").out
        worker.process.send_signal(signal.SIGSTOP)

        def late() -> bool:
            return "is late: its last beat was" in server_shell("doctor").out

        wait_until(late, timeout=30, description="the lease to be late")
        worker.process.send_signal(signal.SIGCONT)


def test_doctor_warns_of_a_visibility_timeout_that_is_short(server_shell: Shell) -> None:
    server_shell.write("hasty.py", "broker_transport_options = {'visibility_timeout': 10}\n")
    server_shell.env |= celery_config(server_shell, "hasty")
    told = {item["about"]: item for item in json.loads(server_shell("doctor", "--json").out)["findings"]}
    assert told["redelivery"]["state"] == "warn"
    assert "10 s" in told["redelivery"]["text"]
