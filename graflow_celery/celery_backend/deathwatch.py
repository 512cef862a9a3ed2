"""Has a worker's death known at once: a small process holds the end of a pipe and reports when the worker is gone.

It sees the end of the worker's main process however it comes, by SIGKILL or by the kernel for want of memory. If it is
killed too, with everything else of its host or container, there is the lease.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from redis.connection import Connection, UnixDomainSocketConnection

from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.environment import worker_environment
from graflow_celery.redis_backend.client import Client


class DeathWatch:
    """The watch over this process, which is the main process of ``worker``."""

    def __init__(self, runtime: Runtime, worker: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("vigil.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=worker_environment(runtime.settings, {}),
            start_new_session=True,  # a signal for the worker's process group is not for it
            bufsize=0,
        )
        os.register_at_fork(after_in_child=self._let_go)
        self._write(json.dumps(_orders(runtime, worker)).encode() + b"\n")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def lives(self) -> bool:
        """Whether the small process is there."""
        return self._process.poll() is None

    def end(self) -> None:
        """The worker ends in good order."""
        self._write(b".")
        self._let_go()
        self._process.wait()

    def _write(self, data: bytes) -> None:
        pipe = self._process.stdin
        try:
            while pipe is not None and data:
                data = data[pipe.write(data) or 0 :]
        except OSError:  # it is gone itself
            pass

    def _let_go(self) -> None:
        """Also in a process of the pool, which may outlive its parent: it must not hold the pipe open."""
        if self._process.stdin is not None:
            self._process.stdin.close()


def _orders(runtime: Runtime, worker: str) -> dict[str, Any]:
    """What is to be done when the worker has died.

    Bytes to be sent, where a plain connection will do: whoever has to import a client first is late by half a second.
    """
    address = _address(runtime.client)
    if address is None:
        return {"command": [sys.executable, "-m", "graflow_celery.redis_backend.obituary", worker]}
    connection = runtime.client.connection_pool.make_connection()
    login = runtime.client.connection_pool.connection_kwargs
    commands: list[tuple[Any, ...]] = []
    if login.get("password"):
        commands.append(("AUTH", *([login["username"]] if login.get("username") else []), login["password"]))
    if login.get("db"):
        commands.append(("SELECT", login["db"]))
    commands += [runtime.liveness.report_command(worker), ("QUIT",)]
    packed = b"".join(part for command in commands for part in connection.pack_command(*command))
    return {"address": address, "send": packed.decode("latin-1")}


def _address(client: Client) -> str | list[str | int] | None:
    """Where the server is; None where more than a connection is needed: TLS, or a Sentinel to be asked."""
    pool = client.connection_pool
    if pool.connection_class is UnixDomainSocketConnection:
        return str(pool.connection_kwargs["path"])
    if pool.connection_class is Connection:
        return [pool.connection_kwargs.get("host", "localhost"), pool.connection_kwargs.get("port", 6379)]
    return None
