"""Every way to reach a server, for the run store, Celery's broker and its result backend at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from graflow_celery import Run, RunStatus, Settings, StoreRefusedError, task, workflow
from graflow_celery.embedded import EmbeddedServer, EmbeddedWorkers
from graflow_celery.environment import settings_environment
from graflow_celery.redis_backend.client import connect
from graflow_celery.settings import load_settings
from graflow_celery.testing import wait_until
from graflow_celery.workflows import WorkflowContext
from tests.e2e.shell import Shell
from tests.servers import certificates, free_port, server_with_tls, started

PASSWORD = "pa55-w0rd/&"
QUOTED = "pa55-w0rd%2F%26"

pytestmark = pytest.mark.workers


@task
def number(index: int) -> int:
    return index


@task(inject_context=True)
def add(context: object, members: dict[str, int]) -> int:
    channel = context.get_channel()  # type: ignore[attr-defined]
    channel.append("sums", sum(members.values()))
    with channel.lock("sums"):
        return int(channel.get("sums")[0])


def adding() -> WorkflowContext:
    with workflow("adding") as wf:
        members = number(task_id="m0", index=0) | number(task_id="m1", index=1) | number(task_id="m2", index=2)
        number(task_id="first", index=0) >> members.set_group_name("members") >> add
    return wf


def check_all(settings: Settings, home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A worker, clients of both kinds and the shell, over one server; and no password in what they say."""
    with EmbeddedWorkers(settings, 1, concurrency=2) as workers, caplog.at_level(logging.DEBUG, "graflow_celery"):
        wf = adding()
        assert wf.execute(backend="celery", settings=settings, timeout=60) == 3

        async def awaited() -> object:
            return await wf.submit(settings=settings)

        assert asyncio.run(asyncio.wait_for(awaited(), 60)) == 3
        run = wf.submit(settings=settings)
        assert run.wait(60) is RunStatus.SUCCEEDED
        assert Run.get(run.id, settings).result() == 3
        shell = Shell(home, settings_environment(settings))
        doctor = shell("doctor")
        assert doctor.code == 0, doctor.out
        assert shell("show", run.id).code == 0
        said = doctor.out + doctor.err + caplog.text + "".join(worker.process.output() for worker in workers)
        assert PASSWORD not in said
        assert QUOTED not in said


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory whose path is short enough for a socket."""
    with EmbeddedServer() as server:
        yield server.socket.parent


def test_tcp_with_a_password(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with started(tmp_path / "s", [f"port {port}", f'requirepass "{PASSWORD}"'], port):
        settings = load_settings(redis_url=f"redis://:{QUOTED}@127.0.0.1:{port}/3")
        check_all(settings, tmp_path, caplog)
        wrong = load_settings(redis_url=f"redis://:wrong@127.0.0.1:{port}/3")
        with pytest.raises(StoreRefusedError, match="WRONGPASS"):
            adding().submit(settings=wrong)


def documented_rights() -> str:
    [line] = [line for line in Path("docs/operations.md").read_text().splitlines() if line.startswith("user graflow")]
    return line.replace("PASSWORD", PASSWORD)


def test_a_unix_socket_with_a_user_who_has_the_documented_rights_and_no_more(
    home: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port, path = free_port(), home / "u.sock"
    with started(tmp_path / "s", [f"port {port}", f"unixsocket {path}", "user default off", documented_rights()], port):
        settings = load_settings(redis_url=f"unix://graflow:{QUOTED}@{path}")
        check_all(settings, tmp_path, caplog)
        client = connect(settings.redis_url)
        with pytest.raises(StoreRefusedError, match="NOPERM"):
            client.set("of-somebody-else", "1")
        with pytest.raises(StoreRefusedError, match="NOPERM"):
            client.flushall()


def test_tls(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority, certificate, key = certificates(tmp_path)
    port = free_port()
    lines = ["port 0", f"tls-port {port}", f'tls-cert-file "{certificate}"', f'tls-key-file "{key}"']
    lines += [f'tls-ca-cert-file "{authority}"', "tls-auth-clients no", f'requirepass "{PASSWORD}"']
    server = server_with_tls(tmp_path / "s", lines, port)
    try:
        settings = load_settings(redis_url=f"rediss://:{QUOTED}@localhost:{port}/0?ssl_ca_certs={authority}")
        check_all(settings, tmp_path, caplog)
    finally:
        server.process.stop(grace=0.0)


@contextmanager
def sentinels(home: Path) -> Iterator[tuple[str, int, int, Any]]:
    """A primary and a replica of it, watched by two sentinels: their URL, both ports, and a client of a sentinel."""
    ports = [free_port() for _ in range(4)]
    primary, replica, *watching = ports
    login = [f'requirepass "{PASSWORD}"', f'masterauth "{PASSWORD}"', 'save ""']
    with ExitStack() as servers:
        servers.enter_context(started(home / "primary", [f"port {primary}", *login], primary))
        following = [f"port {replica}", f"replicaof 127.0.0.1 {primary}", "repl-diskless-sync-delay 0", *login]
        servers.enter_context(started(home / "replica", following, replica))
        watch = [f"sentinel monitor mymaster 127.0.0.1 {primary} 2", f"sentinel auth-pass mymaster {PASSWORD}"]
        watch += ["sentinel down-after-milliseconds mymaster 1000", "sentinel failover-timeout mymaster 5000"]
        for number_, port in enumerate(watching):
            servers.enter_context(started(home / f"sentinel{number_}", [f"port {port}", *watch], port, sentinel=True))
        client: Any = redis.Redis(port=watching[0], decode_responses=True)
        servers.callback(client.close)
        wait_until(lambda: _settled(client), timeout=30, description="the sentinels to know each other and the replica")
        hosts = ",".join(f"127.0.0.1:{port}" for port in watching)
        yield f"sentinel://:{QUOTED}@{hosts}/2?master_name=mymaster", primary, replica, client


def _settled(sentinel: Any) -> bool:
    state = sentinel.sentinel_master("mymaster")
    return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == 1)


@pytest.mark.slow
def test_sentinel(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with sentinels(tmp_path) as (url, primary, replica, sentinel):
        settings = load_settings(redis_url=url)
        check_all(settings, tmp_path, caplog)
        assert sentinel.sentinel_master("mymaster")["port"] == primary
        with EmbeddedWorkers(settings, 1) as workers:
            assert adding().execute(backend="celery", settings=settings, timeout=60) == 3
            sentinel.execute_command("SENTINEL", "FAILOVER", "mymaster")
            # What the old primary still takes until it is told to follow the new one would be lost, as in any failover.
            with redis.Redis(port=primary, password=PASSWORD) as old:
                told = lambda: old.role()[0] == b"slave" and old.role()[2] == replica  # noqa: E731
                wait_until(told, timeout=30, description="the old primary to follow the new one")
            workers.wait_ready()
            assert adding().execute(backend="celery", settings=settings, timeout=60) == 3
