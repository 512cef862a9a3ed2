"""Celery workers of our own, as child processes."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType

from graflow_celery.embedded.interrupts import uninterrupted
from graflow_celery.embedded.process import GuardedProcess
from graflow_celery.embedded.scratch import ScratchDirectory
from graflow_celery.environment import worker_environment
from graflow_celery.errors import UnavailableError
from graflow_celery.redis_backend.client import Scripts, connect, reported
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.liveness import Liveness
from graflow_celery.settings import Settings

READY_TIMEOUT = 30.0
STOP_GRACE = 10.0
CHECK_INTERVAL = 0.03


class EmbeddedWorker:
    """One worker node: a Celery worker with its pool. It goes when stopped, and at the latest with this process.

    Its temporary files, and those of its tasks, lie in the scratch directory and go with it.
    """

    def __init__(
        self,
        settings: Settings,
        scratch: ScratchDirectory,
        *,
        name: str = "worker1@%h",
        concurrency: int = 1,
        queues: Sequence[str] = (),
        loglevel: str = "INFO",
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            settings: what the worker runs with.
            scratch: where its log lies, to be removed by the caller.
            name: its node name; Celery puts the host's name for %h.
            concurrency: how many tasks it runs at a time.
            queues: the queues that it consumes; that of the settings by default.
            arguments: more options of ``celery worker``.
            env: more environment variables.
        """
        self._settings = settings
        self._scratch = scratch
        self._temporary = scratch.path / "tmp"
        self.name = name
        short = name.partition("@")[0]
        command = [sys.executable, "-m", "celery", "-A", "graflow_celery", "worker"]
        command += ["--concurrency", str(concurrency), "--hostname", name, "--loglevel", loglevel]
        command += ["--queues", ",".join(queues) if queues else settings.queue]
        # Both make workers talk to each other at the start, a second long, about what the engine has no use for.
        command += ["--without-mingle", "--without-gossip", *arguments]
        self.process = GuardedProcess(
            f"Worker {short}",
            command,
            log=scratch.path / f"{short}.log",
            env=worker_environment(settings, {"TMPDIR": str(self._temporary), **(env or {})}),
            scratch=scratch.path,
        )

    def start(self) -> None:
        """Starts it without waiting for it to be ready. Does nothing if it runs."""
        self._scratch.make()
        self._temporary.mkdir(exist_ok=True)
        self.process.start()

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Waits until it has told the store that it is alive and consumes its queues.

        Raises:
            UnavailableError: it ended before, or was not ready in time; the message has the end of its log.
            StoreUnavailableError: the store does not answer.
        """
        deadline = time.monotonic() + timeout
        client = connect(self._settings.redis_url)
        try:
            alive = Liveness(client, Scripts(client), Keys(self._settings.key_prefix), self._settings.heartbeat_timeout)
            with reported(self._settings.redis_url):
                while self.process.pid not in [lease.pid for lease in alive.workers()]:
                    self._check(timeout, deadline)
        finally:
            client.close()

    def stop(self, grace: float = STOP_GRACE) -> None:
        """Ends it warmly: running tasks may end. By force after ``grace`` seconds."""
        with uninterrupted(self.process.ask_kill):
            self.process.stop(grace)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends it a signal; after SIGKILL it has ended, with its pool, when this returns. See :meth:`start`."""
        self.process.kill(number)

    def _check(self, timeout: float, deadline: float) -> None:
        if self.process.wait(CHECK_INTERVAL) is not None:
            raise UnavailableError(
                f"{self.process.name} ended with code {self.process.returncode} before it was ready."
                f"{self.process.last_words()}"
            )
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"{self.process.name} was not ready within {timeout:g} s.{self.process.last_words()}"
            )


class EmbeddedWorkers:
    """Some worker nodes: ``with EmbeddedWorkers(settings, count=2) as workers: ...``. They start side by side."""

    def __init__(
        self,
        settings: Settings,
        count: int = 2,
        concurrency: int = 1,
        *,
        queues: Sequence[str] = (),
        loglevel: str = "INFO",
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        scratch: ScratchDirectory | None = None,
    ) -> None:
        """
        Args:
            settings: what the workers run with.
            count: how many nodes.
            concurrency: how many tasks each runs at a time.
            queues, loglevel, arguments, env: see :class:`EmbeddedWorker`.
            scratch: where the logs lie, to be removed by the caller; one of its own by default.
        """
        self._scratch = scratch or ScratchDirectory()
        self._keeps_scratch = scratch is not None
        self.nodes = [
            EmbeddedWorker(
                settings,
                self._scratch,
                name=f"worker{number}@%h",
                concurrency=concurrency,
                queues=queues,
                loglevel=loglevel,
                arguments=arguments,
                env=env,
            )
            for number in range(1, count + 1)
        ]

    def start(self, timeout: float = READY_TIMEOUT) -> None:
        """Starts them and waits until all are ready. Raises what :meth:`wait_ready` raises, with none left running."""
        try:
            for worker in self.nodes:
                worker.start()
            self.wait_ready(timeout)
        except BaseException:
            self.stop(grace=0.0)
            raise

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Waits until all are ready. See :meth:`EmbeddedWorker.wait_ready`."""
        deadline = time.monotonic() + timeout
        for worker in self.nodes:
            worker.wait_ready(max(0.0, deadline - time.monotonic()))

    def stop(self, grace: float = STOP_GRACE) -> None:
        """Ends them all, side by side and warmly; by force those that still run after ``grace`` seconds."""
        with uninterrupted(self.ask_kill):
            if grace <= 0:
                self.ask_kill()
            for worker in self.nodes:
                worker.kill(signal.SIGTERM)
            deadline = time.monotonic() + grace
            for worker in self.nodes:
                worker.process.stop(max(0.0, deadline - time.monotonic()))
            if not self._keeps_scratch:
                self._scratch.remove()

    def ask_kill(self) -> None:
        """Asks for all of them to be killed, without waiting for their end."""
        for worker in self.nodes:
            worker.process.ask_kill()

    def __iter__(self) -> Iterator[EmbeddedWorker]:
        return iter(self.nodes)

    def __len__(self) -> int:
        return len(self.nodes)

    def __getitem__(self, index: int) -> EmbeddedWorker:
        return self.nodes[index]

    def __enter__(self) -> EmbeddedWorkers:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
