"""Servers of the tests' own, with settings that the embedded one does not have: a port, TLS, users, Sentinel."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from graflow_celery.embedded.process import GuardedProcess
from graflow_celery.embedded.server import find_server
from graflow_celery.testing import wait_until


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A Valkey or Redis of the test's own. It may be killed and started again; it is gone with this process at last."""

    def __init__(self, home: Path, lines: Sequence[str], *, program: str = "", sentinel: bool = False) -> None:
        self.home = home
        self.configuration = home / "server.conf"
        self.configuration.write_text("\n".join([f'dir "{home}"', "daemonize no", "bind 127.0.0.1", *lines, ""]))
        command = [program or find_server(), str(self.configuration), *(["--sentinel"] if sentinel else [])]
        self.process = GuardedProcess("The test's server", command, log=home / "server.log", env=os.environ)

    def start(self, port: int) -> None:
        """Starts it and waits until it listens on a port."""
        self.process.start()
        wait_until(
            lambda: self.process.wait(0.0) is not None or _listens(port), timeout=20, description="the server to listen"
        )
        assert self.process.running, self.process.last_words()


@contextmanager
def started(home: Path, lines: Sequence[str], port: int, **options: str | bool) -> Iterator[Server]:
    """A server for the time of the block."""
    home.mkdir(exist_ok=True)
    server = Server(home, lines, **options)  # type: ignore[arg-type]
    try:
        server.start(port)
        yield server
    finally:
        server.process.stop(grace=0.0)


def certificates(home: Path) -> tuple[Path, Path, Path]:
    """A certificate of an authority of our own, one for localhost that it signed, and the latter's key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here to make certificates with")
    authority, authority_key, certificate, key = (home / name for name in ("ca.pem", "ca.key", "host.pem", "host.key"))

    def made(*arguments: str | Path) -> None:
        subprocess.run([openssl, *map(str, arguments)], check=True, capture_output=True, cwd=home)

    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    made(*new, "-subj", "/CN=authority of a test", "-keyout", authority_key, "-out", authority)
    made(
        *new,
        *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        *("-addext", "basicConstraints=critical,CA:FALSE", "-CA", authority, "-CAkey", authority_key),
        *("-keyout", key, "-out", certificate),
    )
    return authority, certificate, key


def server_with_tls(home: Path, lines: Sequence[str], port: int) -> Server:
    """A started server that speaks TLS; the test is skipped where none of those that are here does."""
    home.mkdir(exist_ok=True)
    for program in (find_server(), shutil.which("valkey-server"), shutil.which("redis-server")):
        if program is None:
            continue
        server = Server(home, lines, program=program)
        server.process.start()
        listening = lambda: server.process.wait(0.0) is not None or _listens(port)  # noqa: B023, E731
        wait_until(listening, timeout=20, description="the server to listen")
        if server.process.running:
            return server
        server.process.stop(grace=0.0)
    pytest.skip("no server here was built with TLS")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class RabbitMQ:
    """A RabbitMQ of the test's own: its ports, its files and its name server are nobody else's."""

    def __init__(self, home: Path) -> None:
        """Skips the test where there is none to be started."""
        program = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
        names = shutil.which("epmd")
        if names is None or not program.exists():
            pytest.skip(f"no RabbitMQ to be started here ({program})")
        self.port, distribution, epmd = (free_port() for _ in range(3))
        home.mkdir(exist_ok=True)
        (home / "own.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")
        (home / "plugins").write_text("[].")
        own = {
            "HOME": home,
            "ERL_EPMD_PORT": epmd,
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_DIST_PORT": distribution,
            "RABBITMQ_MNESIA_BASE": home / "mnesia",
            "RABBITMQ_LOG_BASE": home / "log",
            "RABBITMQ_CONFIG_FILE": home / "own.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": home / "none.config",
            "RABBITMQ_GENERATED_CONFIG_DIR": home / "generated",
            "RABBITMQ_ENABLED_PLUGINS_FILE": home / "plugins",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_PID_FILE": home / "pid",
        }
        env = {**os.environ, **{name: str(value) for name, value in own.items()}}
        self._names = GuardedProcess("epmd", [names, "-port", str(epmd)], log=home / "epmd.log", env=env)
        self.process = GuardedProcess("The test's RabbitMQ", [str(program)], log=home / "rabbitmq.log", env=env)

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self) -> None:
        """Starts it and waits until it listens."""
        self._names.start()
        self.process.start()
        listening = lambda: self.process.wait(0.0) is not None or _listens(self.port)  # noqa: E731
        wait_until(listening, timeout=60, description="RabbitMQ to listen")
        assert self.process.running, self.process.last_words()

    def stop(self, grace: float = 0.0) -> None:
        self.process.stop(grace)

    def __enter__(self) -> RabbitMQ:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._names.stop(grace=0.0)
