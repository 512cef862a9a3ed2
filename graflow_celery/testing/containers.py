"""Processes with the face of containers: what pytest-celery asks of a container, answered by a process of ours."""

from __future__ import annotations

import secrets
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import celery
import redis
from pytest_celery import CeleryTestContainer, CeleryWorkerContainer

from graflow_celery.embedded import EmbeddedServer, EmbeddedWorker
from graflow_celery.embedded.process import GuardedProcess
from graflow_celery.settings import Settings, celery_url

EXEC_TIMEOUT = 60.0


class Node(Protocol):
    """A server or a worker."""

    @property
    def process(self) -> GuardedProcess: ...

    def start(self) -> None: ...

    def stop(self, grace: float) -> None: ...

    def kill(self, number: int) -> None: ...


class ProcessContainer:
    """A node with the attributes and methods of ``docker.models.containers.Container`` that pytest-celery uses."""

    def __init__(self, node: Node, container_id: str) -> None:
        self._node = node
        self.id = container_id
        self.name = f"{node.process.name.rpartition(' ')[2]}-{container_id[:12]}"
        self.status = "created"
        self.attrs: dict[str, Any] = {
            "Id": container_id,
            "Name": self.name,
            "Config": {
                "Hostname": container_id[:12],
                "Cmd": node.process.command,
                "Env": [f"{name}={value}" for name, value in node.process.env.items()],
            },
            "HostConfig": {"PortBindings": {}},
            "NetworkSettings": {"Networks": {}, "Ports": {}},
        }
        self.reload()

    def reload(self) -> None:
        """Looks how the process stands: ``created``, ``running`` or ``exited``."""
        process = self._node.process
        if process.running:
            self.status = "running"
        elif process.returncode is not None:
            self.status = "exited"

    def kill(self, number: str | int | None = None) -> None:
        """Sends a signal, by name or number. As in a container, all processes end with the main one."""
        wanted = "SIGKILL" if number is None else number
        self._node.kill(signal.Signals[wanted] if isinstance(wanted, str) else signal.Signals(wanted))

    def stop(self, timeout: float = 10) -> None:
        """SIGTERM, and SIGKILL after ``timeout`` seconds."""
        self._node.stop(timeout)

    def restart(self, timeout: float = 10) -> None:
        """Stops it and starts it again with the same name, id and log."""
        self._node.stop(timeout)
        self._node.start()
        self.reload()

    def logs(self) -> bytes:
        """What it wrote, from its first start on."""
        return self._node.process.output().encode()

    def exec_run(self, command: str | list[str]) -> tuple[int, bytes]:
        """Runs a command with the node's environment; returns its exit code and output."""
        words = shlex.split(command) if isinstance(command, str) else command
        words = [sys.executable if word == "python" else word for word in words[:1]] + words[1:]
        done = subprocess.run(
            words,
            env=self._node.process.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=EXEC_TIMEOUT,
            check=False,
        )
        return done.returncode, done.stdout


class ServerContainer(CeleryTestContainer):
    """A broker or a result backend: an embedded Valkey or Redis."""

    def __init__(self, server: EmbeddedServer) -> None:
        super().__init__(ProcessContainer(server, secrets.token_hex(32)))
        self.server = server

    @property
    def client(self) -> redis.Redis:
        """A client of the server, for assertions about what it holds."""
        return redis.Redis.from_url(self.server.url, decode_responses=True)

    @property
    def celeryconfig(self) -> dict[str, str]:
        url = celery_url(self.server.url)
        return {"url": url, "host_url": url, "hostname": self.id[:12], "vhost": "0"}


class WorkerContainer(CeleryWorkerContainer):
    """A worker node that runs the engine."""

    def __init__(self, worker: EmbeddedWorker, settings: Settings, container_id: str) -> None:
        super().__init__(ProcessContainer(worker, container_id))
        self.worker = worker
        self._settings = settings

    def ready(self) -> bool:
        """Waits until the worker consumes its queues.

        Raises:
            ContainerFailed: it had ended. UnavailableError: it ended, or was not ready in time.
        """
        if not super().ready():
            return False
        self.worker.wait_ready()
        return True

    @property
    def ready_prompt(self) -> str | None:
        """None: a log keeps the prompt of an earlier start, so :meth:`ready` asks for the worker's lease."""
        return None

    def version(self) -> str:
        return str(celery.__version__)

    def log_level(self) -> str:
        return "INFO"

    def worker_name(self) -> str:
        return self.worker.name.partition("@")[0]

    def worker_queue(self) -> str:
        return self._settings.queue

    @property
    def log_file(self) -> Path:
        return self.worker.process.log
