"""Has a worker's death known at once: a fork of its main process holds the end of a pipe, and reports its closing.

It sees the end of the worker's main process however it comes, by SIGKILL or by the kernel for want of memory. If it is
killed too, with everything else of its host or container, there is the lease.

A fork has imported what it needs: a program that had yet to be started, or to import the client, would take longer for
that, half a second of computing, than for all else together. A worker with greenlets is not forked, because its event
loop would be: a program imports the client at the worker's start and then waits.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from typing import NoReturn

from celery import platforms
from kombu.utils.compat import detect_environment

from graflow_celery.environment import worker_environment
from graflow_celery.redis_backend import obituary
from graflow_celery.settings import Settings

#: Standard input, output and error.
STANDARD = 3


class DeathWatch:
    """The watch over this process, which is the main process of ``worker``."""

    def __init__(self, settings: Settings, worker: str) -> None:
        end, self._held = os.pipe()
        if detect_environment() == "default":
            self.pid = os.fork()
            if self.pid == 0:
                _watch(end, settings, worker)
        else:
            self._program = subprocess.Popen(
                [sys.executable, "-m", obituary.__name__, worker],
                stdin=end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=worker_environment(settings, {}),
                start_new_session=True,
            )
            self.pid = self._program.pid
        os.close(end)
        os.register_at_fork(after_in_child=self._let_go)

    def end(self) -> None:
        """The worker ends in good order."""
        with suppress(OSError):  # It is gone itself.
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def _let_go(self) -> None:
        """In a process of the pool, which may outlive its parent: it must not hold the pipe open."""
        with suppress(OSError):
            os.close(self._held)


def _watch(end: int, settings: Settings, worker: str) -> NoReturn:
    """The life of the fork. It holds nothing of the worker's: a broker would take an open connection for a live one."""
    try:
        os.setsid()  # A signal for the worker's process group is not for it.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        for stream in range(STANDARD):
            os.dup2(null, stream)
        os.closerange(STANDARD, end)
        os.closerange(end + 1, os.sysconf("SC_OPEN_MAX"))
        platforms.set_process_title("graflow-deathwatch", worker)
        if not os.read(end, 1):
            obituary.report(settings, worker)
    finally:
        os._exit(0)
