"""The sides: each a server of its own, so that its statistics count one side alone, and two workers with two places."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graflow_celery.embedded import EmbeddedCluster, EmbeddedServer
from graflow_celery.embedded.scratch import ScratchDirectory
from graflow_celery.redis_backend.client import connect
from graflow_celery.settings import celery_url
from tests.bench.content.tap import Message, Tap
from tests.bench.processes import environment, running, wait_ready
from tests.servers import free_port

WORKERS, PLACES = 2, 2
PEER_FLOWS = Path(__file__).with_name("peer_flows.py")


class Ours:
    """The engine's cluster."""

    def __init__(self, cluster: EmbeddedCluster) -> None:
        self.cluster = cluster
        self.settings = cluster.settings
        self.server = connect(cluster.settings.redis_url)
        self.blobs = f"{cluster.settings.key_prefix}:blob:"

    def tap(self, workload: str) -> Tap:
        return Tap(self.settings.redis_url, workload)

    def submitted(self, flow: str, mark: str, *options: str) -> list[dict[str, Any]]:
        """What a fresh process says of its submits to a queue that nobody consumes; see `client`."""
        unserved = {"GRAFLOW_CELERY_QUEUE": f"unserved-{secrets.token_hex(3)}"}
        command = [sys.executable, "-m", "tests.bench.content.client", flow, mark, *options]
        done = subprocess.run(
            command, check=False, env=environment({**self.cluster.env, **unserved}), capture_output=True, text=True
        )
        self.server.delete(unserved["GRAFLOW_CELERY_QUEUE"])
        if done.returncode:
            raise RuntimeError(f"the client that submits {flow} failed: {done.stderr}")
        return list(json.loads(done.stdout.splitlines()[-1]))


@dataclass
class Raw:
    """Plain Celery's server; `raw` is its app."""

    server: Any
    url: str

    def tap(self, workload: str) -> Tap:
        return Tap(self.url, workload)


@dataclass
class Peer:
    """graflow's server."""

    server: Any
    url: str
    port: int
    python: str
    home: Path

    def tap(self, workload: str) -> Tap:
        return Tap(self.url, workload)

    def run(self, work: str, number: int) -> tuple[float, int]:
        """Seconds, and how many of its groups or members were served."""
        command = [self.python, str(PEER_FLOWS), work, str(self.port), "peer", str(number)]
        done = subprocess.run(command, check=False, cwd=self.home, capture_output=True, text=True, timeout=600)
        if done.returncode:
            raise RuntimeError(f"graflow failed at {work}: {done.stderr[-2000:]}")
        seconds, served = done.stdout.split()[-2:]
        return float(seconds), int(served)


class Sides:
    """All of them, and the largest message that a tap saw of each, by its task."""

    def __init__(self, ours: Ours, raw: Raw, peer: Peer | None) -> None:
        self.ours = ours
        self.raw = raw
        self.peer = peer
        self.largest: dict[str, dict[str, Message]] = {"ours": {}, "raw": {}, "graflow": {}}

    @contextmanager
    def tap(self, side: Ours | Raw | Peer, workload: str) -> Iterator[Tap]:
        """A tap on one side's server, whose largest messages are remembered."""
        with side.tap(workload) as tap:
            yield tap
        name = "ours" if side is self.ours else "raw" if side is self.raw else "graflow"
        known = self.largest[name]
        for task, message in tap.largest.items():
            if task not in known or message.size > known[task].size:
                known[task] = message


@contextmanager
def ours() -> Iterator[Ours]:
    with EmbeddedCluster(WORKERS, PLACES) as cluster:
        yield Ours(cluster)


@contextmanager
def raw() -> Iterator[Raw]:
    scratch = ScratchDirectory()
    with EmbeddedServer() as server:
        os.environ["RAW_CELERY_URL"], os.environ["RAW_STORE_URL"] = celery_url(server.url), server.url
        command = [
            sys.executable,
            "-m",
            "celery",
            "-A",
            "tests.bench.content.raw",
            "worker",
            "-Q",
            "raw",
            "-l",
            "ERROR",
        ]
        command += ["--concurrency", str(PLACES)]
        commands = [[*command, "-n", f"raw{number}@%h"] for number in range(WORKERS)]
        # Celery refuses to unpickle for root, and the bench may run in a container.
        with running("raw", commands, scratch, environment({"C_FORCE_ROOT": "1"})) as workers:
            from tests.bench.content import raw as app  # reads where its server is when it is imported

            wait_ready(workers, lambda: len(app.app.control.ping(timeout=0.5)) == WORKERS)
            try:
                yield Raw(connect(server.url), server.url)
            finally:
                # Results unsubscribe when they are collected, and try for long if the server is gone by then.
                app.app.backend.result_consumer.subscribed_to.clear()
                app.app.close()


@contextmanager
def peer(python: str) -> Iterator[Peer]:
    """``python``: where graflow is installed. It has no Unix sockets, so its server listens on a port too."""
    scratch = ScratchDirectory()
    with EmbeddedServer() as server, tempfile.TemporaryDirectory() as home:
        client, port = connect(server.url), free_port()
        client.config_set("bind", "127.0.0.1")
        client.config_set("port", port)
        command = [python, "-m", "graflow.worker.main", "--redis-host", "127.0.0.1", "--redis-port", str(port)]
        command += ["--redis-key-prefix", "peer", "--max-concurrent-tasks", str(PLACES), "--poll-interval", "0.01"]
        commands = [[*command, "--worker-id", f"peer{number}"] for number in range(WORKERS)]
        with running("peer", commands, scratch, os.environ) as workers:
            wait_ready(workers, lambda: int(client.info("clients")["connected_clients"]) > WORKERS)
            yield Peer(client, server.url, port, python, Path(home))
