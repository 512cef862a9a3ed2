"""The processes of the chaos command: a server with its data, worker nodes, a monitor and submitting clients."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil  # type: ignore[import-untyped]

from graflow_celery.embedded import EmbeddedServer
from graflow_celery.embedded.scratch import ScratchDirectory
from graflow_celery.environment import worker_environment
from graflow_celery.redis_backend.client import Client, Scripts, connect
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.liveness import Liveness
from graflow_celery.settings import Settings, load_settings
from graflow_celery.testing import wait_until
from tests.processes import marked_processes

MARK = "GRAFLOW_CHAOS"
PROGRAM = Path(sys.executable).with_name("graflow-celery")
STOP_GRACE = 20.0
#: Kills what is marked as soon as its standard input ends: when the command itself dies, however it dies.
REAPER = """
import sys
from tests.processes import marked_processes
sys.stdin.read()
for process in marked_processes(sys.argv[1], sys.argv[2]):
    if "reaper" not in process.environ():
        process.kill()
"""


@dataclass
class Actor:
    """One process, in a session of its own, which is started again and again under the same name."""

    name: str
    command: list[str]
    env: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    #: Why it is not to be disturbed now: "starting", "stopped", "ending", "down"; empty if it is well.
    trouble: str = "down"
    #: Of a client: it has done its work.
    done: bool = False
    #: Exit codes that no fault explains.
    unexplained: list[int] = field(default_factory=list)

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=dict(self.env),
                start_new_session=True,
            )
        self.starts += 1
        self.trouble = "starting"

    @property
    def pid(self) -> int:
        return 0 if self.process is None else self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def send(self, number: int, *, group: bool = True) -> None:
        """A signal to the process, or to every process of its group."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                (os.killpg if group else os.kill)(self.pid, number)

    def pool(self) -> list[int]:
        """The processes of a worker's pool: children that run the same program."""
        try:
            main = psutil.Process(self.pid)
            line = main.cmdline()
            return sorted(child.pid for child in main.children() if _line(child) == line)
        except psutil.NoSuchProcess:
            return []

    def words(self, lines: int = 25) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Stage:
    """Everything that runs. Leave its block, and nothing of it runs any more."""

    def __init__(
        self,
        *,
        seed: int,
        runs: int,
        workers: int,
        concurrency: int,
        clients: int,
        pace: float,
        broker: str,
        fsync: str,
    ) -> None:
        self.mark = f"{os.getpid()}-{time.time_ns()}"
        os.environ[MARK] = self.mark
        self.scratch = ScratchDirectory()
        home = self.scratch.make()
        self.server = EmbeddedServer(
            home / "data", scratch=self.scratch, fsync="always" if fsync == "always" else "everysec"
        )
        own = {"redis_url": self.server.url, "broker_url": broker, "result_backend": ""}
        self.queue = f"chaos-{self.mark}" if broker else "celery"
        self.settings: Settings = load_settings(**own, queue=self.queue)
        self.client: Client = connect(self.settings.redis_url)
        self.keys = Keys(self.settings.key_prefix)
        self.liveness = Liveness(self.client, Scripts(self.client), self.keys, self.settings.heartbeat_timeout)
        self._env = worker_environment(self.settings, {"PYTHONUNBUFFERED": "1", "TMPDIR": str(home)})
        self._reaper: subprocess.Popen[bytes] | None = None
        self.workers = [self._worker(f"w{number}", concurrency) for number in range(1, workers + 1)]
        self.monitor = self._actor("monitor", [str(PROGRAM), "monitor"])
        bounds = [runs * number // clients for number in range(clients + 1)]
        self.clients = [
            self._actor(
                f"client{number}",
                [
                    *(sys.executable, "-m", "tests.fault.chaos_client", "--seed", str(seed), "--pace", str(pace)),
                    *("--numbers", str(bounds[number]), str(bounds[number + 1])),
                ],
            )
            for number in range(clients)
        ]

    def _actor(self, name: str, command: list[str]) -> Actor:
        return Actor(name, command, self._env, self.scratch.path / f"{name}.log")

    def _worker(self, name: str, concurrency: int) -> Actor:
        line = [sys.executable, "-m", "celery", "-A", "graflow_celery", "worker", "--hostname", f"{name}@chaos"]
        line += ["--concurrency", str(concurrency), "--queues", self.queue, "--loglevel", "INFO"]
        return self._actor(name, [*line, "--without-mingle", "--without-gossip"])

    @property
    def actors(self) -> list[Actor]:
        return [*self.workers, self.monitor, *self.clients]

    def __enter__(self) -> Self:
        line = [sys.executable, "-c", REAPER, MARK, self.mark]
        self._reaper = subprocess.Popen(
            line, stdin=subprocess.PIPE, start_new_session=True, env={**os.environ, "reaper": "1"}
        )
        try:
            self.server.start()
            for actor in (*self.workers, self.monitor):
                actor.start()
            wait_until(lambda: self.see() == len(self.workers), timeout=60, description="the workers to be ready")
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def see(self) -> int:
        """Notes who has become ready; returns how many workers are well."""
        ready = {lease.pid for lease in self.liveness.workers()}
        for actor in self.actors:
            if actor.trouble == "starting" and (actor.pid in ready or actor not in self.workers):
                actor.trouble = ""
        return sum(not worker.trouble for worker in self.workers)

    def stop(self) -> list[str]:
        """Ends all gracefully, the server last. Returns what did not end, or left something running."""
        complaints: list[str] = []
        for actor in self.actors:
            actor.send(signal.SIGCONT)
            actor.send(signal.SIGTERM, group=False)
        for actor in self.actors:
            try:
                wait_until(lambda actor=actor: not actor.alive, timeout=STOP_GRACE, description="its end")  # type: ignore[misc]
            except TimeoutError:
                complaints.append(f"{actor.name} (process {actor.pid}) did not end {STOP_GRACE:g} s after SIGTERM")
        self.server.stop()
        try:
            wait_until(lambda: not self.running(), timeout=10, description="all processes to be gone")
        except TimeoutError:
            complaints += [f"left running: {process} {_line(process)}" for process in self.running()]
        return complaints

    def running(self) -> list[psutil.Process]:
        """What of all this still runs."""
        reaper = 0 if self._reaper is None else self._reaper.pid
        return [process for process in marked_processes(MARK, self.mark) if process.pid != reaper]

    def end(self) -> None:
        """Ends all by force, and removes what it wrote."""
        for process in self.running():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for actor in self.actors:
            if actor.process is not None:
                actor.process.wait(10)
        self.server.stop(grace=0.0)
        self.client.close()
        if self._reaper is not None:
            self._reaper.communicate(timeout=30)
        self.scratch.remove()

    def keep(self, directory: Path) -> None:
        """Copies the logs, for who looks for the cause of something."""
        directory.mkdir(parents=True, exist_ok=True)
        for log in self.scratch.path.glob("*.log"):
            shutil.copy(log, directory / log.name)

    def matches(self, actors: Sequence[Actor], *texts: str) -> int:
        """In how many lines of the actors' logs all of the texts stand."""
        logs = [actor.log.read_text(errors="replace") for actor in actors if actor.log.exists()]
        return sum(all(text in line for text in texts) for log in logs for line in log.splitlines())


def _line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []
