"""A server and workers of our own: all that a distributed run needs, for as long as this process wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from graflow_celery.embedded.interrupts import uninterrupted
from graflow_celery.embedded.scratch import ScratchDirectory
from graflow_celery.embedded.server import EmbeddedServer
from graflow_celery.embedded.workers import READY_TIMEOUT, STOP_GRACE, EmbeddedWorkers
from graflow_celery.environment import settings_environment
from graflow_celery.settings import Settings, load_settings

INTERRUPT_GRACE = 1.0


class EmbeddedCluster:
    """A server with some workers, and the settings with which to reach them::

        with EmbeddedCluster(workers=2) as cluster:
            wf.execute(backend="celery", settings=cluster.settings)

    It prints nothing. When the block is left, in whatever way, no process and no file of it is left behind; when this
    process is killed, its children end within a second.
    """

    def __init__(
        self,
        workers: int = 2,
        concurrency: int = 1,
        *,
        queues: Sequence[str] = (),
        loglevel: str = "INFO",
        arguments: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        data_dir: Path | None = None,
        **settings: Any,
    ) -> None:
        """
        Args:
            workers: how many worker nodes.
            concurrency: how many tasks each runs at a time.
            queues, loglevel, arguments, env: see :class:`EmbeddedWorker`.
            data_dir: see :class:`EmbeddedServer`.
            settings: fields of :class:`Settings` that differ from the environment's.

        Raises:
            ServerMissingError: no server program was found.
            ConfigError: a setting is unusable.
        """
        self._scratch = ScratchDirectory()
        self.server = EmbeddedServer(data_dir, scratch=self._scratch)
        own = {"redis_url": self.server.url, "broker_url": "", "result_backend": ""}
        self.settings: Settings = load_settings(**{**own, **settings})
        self.workers = EmbeddedWorkers(
            self.settings,
            workers,
            concurrency,
            queues=queues,
            loglevel=loglevel,
            arguments=arguments,
            env=env,
            scratch=self._scratch,
        )

    @property
    def env(self) -> dict[str, str]:
        """The variables with which another process finds this cluster."""
        return settings_environment(self.settings)

    def start(self, timeout: float = READY_TIMEOUT) -> None:
        """Starts everything and waits until the workers are ready.

        Raises:
            UnavailableError: something ended at once or wasn't ready in time. Nothing is left running.
        """
        try:
            self.server.start(timeout)
            self.workers.start(timeout)
        except BaseException:
            self.stop(grace=0.0)
            raise

    def stop(self, grace: float = STOP_GRACE) -> None:
        """Ends the workers, which may end their tasks within ``grace`` seconds, then the server.

        A Ctrl-C meanwhile ends them by force; KeyboardInterrupt is raised when all is done.
        """
        with uninterrupted(self._ask_kill):
            try:
                self.workers.stop(grace)
            finally:
                self.server.stop()
                self._scratch.remove()

    def _ask_kill(self) -> None:
        self.workers.ask_kill()
        self.server.process.ask_kill()

    def __enter__(self) -> EmbeddedCluster:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(STOP_GRACE if error is None else INTERRUPT_GRACE)
