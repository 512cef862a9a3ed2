"""Worker nodes of either side: started, killed, stopped in mid-air, and looked at from outside."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import psutil  # type: ignore[import-untyped]

from graflow_celery.embedded import EmbeddedWorker
from graflow_celery.embedded.process import GuardedProcess
from graflow_celery.embedded.scratch import ScratchDirectory
from graflow_celery.environment import worker_environment
from graflow_celery.settings import Settings
from graflow_celery.testing import wait_until

READY_TIMEOUT = 60.0


class Node:
    """One worker node: a Celery main process with its pool."""

    def __init__(self, label: str, name: str, process: GuardedProcess, ready: Callable[[], object]) -> None:
        self.label = label
        self.name = name
        self.process = process
        self.wait_ready = ready

    @property
    def main(self) -> psutil.Process:
        return psutil.Process(self.process.pid)

    def processes(self) -> list[psutil.Process]:
        """The main process first, then whatever it started."""
        return [self.main, *self.main.children(recursive=True)]

    def kill(self) -> float:
        """SIGKILL to its process group at one go; returns when, by the monotonic clock."""
        at = time.monotonic()
        self.process.kill()
        return at

    def freeze(self) -> float:
        """SIGSTOP to all of its processes; returns when."""
        at = time.monotonic()
        for process in self.processes():
            os.kill(process.pid, signal.SIGSTOP)
        return at

    def thaw(self) -> None:
        for process in self.processes():
            os.kill(process.pid, signal.SIGCONT)

    def end(self) -> None:
        """By force, whatever state it is in."""
        with suppress(psutil.NoSuchProcess):
            left = self.processes() if self.process.running else []
            self.process.kill()
            psutil.wait_procs(left, timeout=5)


def our_node(
    settings: Settings,
    scratch: ScratchDirectory,
    label: str,
    concurrency: int,
    arguments: Sequence[str],
    env: Mapping[str, str],
) -> Node:
    name = f"{label}-{settings.queue}@bench"
    worker = EmbeddedWorker(
        settings,
        scratch,
        name=name,
        concurrency=concurrency,
        arguments=["--include", "tests.bench.faults.flows", *arguments],
        env=env,
        queues=[settings.queue],
    )
    worker.start()
    return Node(label, name, worker.process, lambda: worker.wait_ready(READY_TIMEOUT))


def plain_node(
    settings: Settings,
    scratch: ScratchDirectory,
    label: str,
    concurrency: int,
    arguments: Sequence[str],
    env: Mapping[str, str],
) -> Node:
    name = f"{label}-{settings.queue}@bench"
    command = [sys.executable, "-m", "celery", "-A", "tests.bench.faults.raw", "worker", "--loglevel", "INFO"]
    command += ["--concurrency", str(concurrency), "--hostname", name, "--queues", settings.queue, *arguments]
    log = scratch.make() / f"{name}.log"
    process = GuardedProcess(
        f"Worker {name}", command, log=log, env=worker_environment(settings, env), scratch=scratch.path
    )
    process.start()

    def ready() -> None:
        wait_until(lambda: f"{name} ready." in process.output(), timeout=READY_TIMEOUT, description=f"{name}")

    return Node(label, name, process, ready)
