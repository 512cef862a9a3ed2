"""A child process that cannot outlive this one, whatever ends this one: see `graflow_celery.embedded.guard`."""

from __future__ import annotations

import io
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from graflow_celery.embedded import guard
from graflow_celery.errors import UnavailableError

KILL_TIMEOUT = 10.0
SPAWN_TIMEOUT = 30.0
KILLED = 128 + signal.SIGKILL


class GuardedProcess:
    """A command run as a child of ours, in a session of its own, with its output appended to a log file.

    A Ctrl-C in the terminal doesn't reach it. It is killed, with every process of its group, when this process ends in
    any way, when this object is collected, and when the command itself has ended and left children behind. It may be
    started again after it has ended. For one thread at a time.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str],
        scratch: Path | None = None,
    ) -> None:
        """
        Args:
            name: what errors call it.
            command: the program, as an absolute path, and its arguments.
            log: where its output goes.
            env: its whole environment.
            scratch: a directory that is removed if this process dies without stopping it.
        """
        self.name = name
        self.command = list(command)
        self.log = log
        self.env = dict(env)
        self.returncode: int | None = None
        self._scratch = scratch
        self._guard: subprocess.Popen[bytes] | None = None
        self._control: io.FileIO | None = None
        self._report: io.FileIO | None = None
        self._unread = b""
        self._pid: int | None = None

    def start(self) -> None:
        """Starts it and returns at once. Does nothing if it runs."""
        if self.running:
            return
        self._pid = self.returncode = None
        self._unread = b""
        # Our ends of the pipes are in place before the guard is: wherever this is interrupted, they get closed in the
        # end, and the guard goes by that.
        their_control, self._control = _pipe()
        self._report, their_report = _pipe()
        with their_control, their_report, self.log.open("ab") as output:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(self._scratch or ""), *self.command],
                stdin=their_control,
                stdout=their_report,
                stderr=output,
                env=self.env,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self._report is not None and self.wait(0.0) is None

    @property
    def pid(self) -> int:
        """The command's process id, also after its end. Raises UnavailableError if it could not be started."""
        deadline = time.monotonic() + SPAWN_TIMEOUT
        while self._pid is None and self._report is not None:
            if not self._receive(deadline - time.monotonic()):
                break
        if self._pid is None:
            raise UnavailableError(f"{self.name} could not be started.{self.last_words()}")
        return self._pid

    def wait(self, timeout: float) -> int | None:
        """Waits until it, and every process of its group, has ended.

        Returns:
            Its exit code, 128 + n if signal n ended it; None if it still runs after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while self._report is not None and self._receive(deadline - time.monotonic()):
            pass
        return self.returncode

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal to the command's own process. SIGKILL goes to its whole group, which has ended on return."""
        if number == signal.SIGKILL:
            self.ask_kill()
            self.wait(KILL_TIMEOUT)
        else:
            self._ask(f"child {int(number)}")

    def ask_kill(self) -> None:
        """As :meth:`kill` without waiting for the end."""
        self._ask(f"group {int(signal.SIGKILL)}")

    def stop(self, grace: float) -> None:
        """Ends it: SIGTERM, and SIGKILL to its whole group if it still runs after ``grace`` seconds."""
        self.kill(signal.SIGTERM)
        if self.wait(grace) is None:
            self.kill()
        self._close()

    def output(self) -> str:
        """What it has written so far, from its first start on."""
        with suppress(FileNotFoundError):
            return self.log.read_text(encoding="utf-8", errors="replace")
        return ""

    def last_words(self, lines: int = 12) -> str:
        """The end of its output, as it is appended to an error's message; empty if there is none."""
        tail = [line for line in self.output().splitlines() if line.strip()][-lines:]
        return "".join(f"\n    {line}" for line in ["Its log ends:", *tail]) if tail else ""

    def _ask(self, line: str) -> None:
        if self._control is not None:
            with suppress(BrokenPipeError):
                self._control.write(f"{line}\n".encode())

    def _receive(self, timeout: float) -> bool:
        """Takes in what the guard reports next. False if nothing came in time."""
        if self._report is None:
            return False
        poll = select.poll()
        poll.register(self._report, select.POLLIN)
        if not poll.poll(max(0.0, timeout) * 1000):
            return False
        data = self._report.read(4096)
        *lines, self._unread = (self._unread + (data or b"")).split(b"\n")
        for line in lines:
            word, number = line.split()
            if word == b"pid":
                self._pid = int(number)
            else:
                self.returncode = int(number)
        if not data or self.returncode is not None:
            self._settle()
        return True

    def _settle(self) -> None:
        """The guard has ended. If it was killed, what it guarded is killed from here."""
        if self.returncode is None:
            if self._pid is not None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._pid, signal.SIGKILL)
            self.returncode = KILLED
        self._close()

    def _close(self) -> None:
        """Closes the pipes, which ends the guard if nothing else has."""
        for end in (self._control, self._report):
            if end is not None:
                end.close()
        self._control = self._report = None
        if self._guard is not None:
            with suppress(subprocess.TimeoutExpired):
                self._guard.wait(KILL_TIMEOUT)
            self._guard = None


def _pipe() -> tuple[io.FileIO, io.FileIO]:
    """The two ends of a pipe: what is written to the second can be read from the first."""
    reader, writer = os.pipe()
    return io.FileIO(reader, "rb"), io.FileIO(writer, "wb")
