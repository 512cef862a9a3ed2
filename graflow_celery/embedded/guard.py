"""Stands between us and a process that must not outlive us. A program of its own, on the standard library alone.

    python -I -S guard.py SCRATCH COMMAND ARGUMENT...

It starts COMMAND in a process group of its own and then waits for whichever comes first: the command ends, its owner
asks for a signal to be sent, or the owner dies. The owner's death shows as the end of standard input, whose other end
the owner holds, or as a new parent. Then, and whenever the command ends, everything in the command's group is killed.
After the owner's death the directory SCRATCH is removed too, if it isn't empty text.

Standard input takes lines "child SIGNAL" or "group SIGNAL"; standard output gives "pid PID" and "exit CODE"; standard
error is the command's log. An owner may be killed at any instruction: nothing has to be said for the end to come.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import suppress

OWNER_CHECK = 1.0
SWEEP_TRIES = 500
SWEEP_SLICE = 0.002
SET_CHILD_SUBREAPER = 36
NOT_STARTED = 127
ABANDONED = 1


class Guard:
    """Watches over one command."""

    def __init__(self, command: list[str], scratch: str) -> None:
        self._command = command
        self._scratch = scratch
        self._owner = os.getppid()
        self._ending = False
        self._unread = b""

    def run(self) -> int:
        """Returns the command's exit code, 128 + n if signal n ended it."""
        wake = self._wake_on_signals()
        _adopt_orphans()
        try:
            child = self._start()
        except OSError as error:
            os.write(2, f"{self._command[0]} could not be started: {error}\n".encode())
            _tell(f"exit {NOT_STARTED}")
            return NOT_STARTED
        _tell(f"pid {child}")
        while True:
            ready, _, _ = select.select([0, wake], [], [], OWNER_CHECK)
            if wake in ready:
                os.read(wake, 4096)
            code = _reap().get(child)
            if code is not None:
                _sweep(child)
                _tell(f"exit {code}")
                return code
            if self._ending or os.getppid() != self._owner or (0 in ready and not self._obey(child)):
                return self._abandon(child)

    def _start(self) -> int:
        ignored = [signal.SIGPIPE, signal.SIGINT, signal.SIGXFSZ]
        actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, 2, 1)]
        return os.posix_spawn(
            self._command[0], self._command, os.environ, file_actions=actions, setpgroup=0, setsigdef=ignored
        )

    def _obey(self, child: int) -> bool:
        """Sends the signals that the owner asks for. False when the owner is gone."""
        data = os.read(0, 4096)
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            target, number = line.split()
            send = os.killpg if target == b"group" else os.kill
            with suppress(OSError):  # It may have just ended, which the next turn of the loop sees.
                send(child, int(number))
        return bool(data)

    def _abandon(self, child: int) -> int:
        _sweep(child)
        if self._scratch:
            _remove(self._scratch)
        return ABANDONED

    def _wake_on_signals(self) -> int:
        """A descriptor that becomes readable when a child ends or when this process is told to end."""
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._end)
        return wake

    def _end(self, *_: object) -> None:
        self._ending = True


def _tell(text: str) -> None:
    with suppress(OSError):  # The owner may be gone, which standard input tells as well.
        os.write(1, f"{text}\n".encode())


def _adopt_orphans() -> None:
    """Makes the command's orphans children of this process, so that it sees them end. On Linux: init may be slow."""
    with suppress(ImportError, AttributeError, OSError):
        import ctypes

        ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap() -> dict[int, int]:
    """The children that have ended since, with their exit codes."""
    codes: dict[int, int] = {}
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            codes[found[0]] = _code(found[1])
    return codes


def _sweep(group: int) -> None:
    """Kills what is left of a process group, and waits, for a second at most, until nothing is."""
    for _ in range(SWEEP_TRIES):
        try:
            os.killpg(group, signal.SIGKILL)
        except OSError:
            return
        _reap()
        select.select([], [], [], SWEEP_SLICE)


def _remove(directory: str) -> None:
    """Removes a directory tree. Other guards may do the same at the same time; the last one finishes it."""
    for parent, _, files in os.walk(directory, topdown=False):
        for path in (*(os.path.join(parent, name) for name in files), parent):
            with suppress(OSError):  # Another guard was faster, or a file was made by what that one is about to kill.
                (os.rmdir if path == parent else os.unlink)(path)


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(Guard(sys.argv[2:], sys.argv[1]).run())
