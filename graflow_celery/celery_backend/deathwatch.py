"""Has a worker's death known at once: a small process holds the end of a pipe and reports when the worker is gone.

It sees the end of the worker's main process however it comes, by SIGKILL or by the kernel for want of memory. If it is
killed too, with everything else of its host or container, there is the lease.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from graflow_celery.environment import worker_environment
from graflow_celery.settings import Settings


class DeathWatch:
    """The watch over this process, which is the main process of ``worker``."""

    def __init__(self, settings: Settings, worker: str) -> None:
        report = [sys.executable, "-m", "graflow_celery.redis_backend.obituary", worker]
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("vigil.py")), *report],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=worker_environment(settings, {}),
            start_new_session=True,  # a signal for the worker's process group is not for it
            bufsize=0,
        )
        os.register_at_fork(after_in_child=self._let_go)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def lives(self) -> bool:
        """Whether the small process is there."""
        return self._process.poll() is None

    def end(self) -> None:
        """The worker ends in good order."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            try:
                self._process.stdin.write(b".")
                self._process.stdin.close()
            except OSError:  # it is gone itself
                pass
        self._process.wait()

    def _let_go(self) -> None:
        """In a process of the pool, which may outlive its parent: it must not hold the pipe open."""
        if self._process.stdin is not None:
            self._process.stdin.close()
