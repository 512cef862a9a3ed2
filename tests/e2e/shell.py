"""The real command line in a process of its own: what a person or a script gets from it."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil  # type: ignore[import-untyped]

from graflow_celery.testing import wait_until

PROGRAM = Path(sys.executable).with_name("graflow-celery")
MARK = "GRAFLOW_TEST_SHELL"
TIMEOUT = 60.0


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit code, and what it wrote to stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> list[str]:
        """The lines on stderr, for a person: no more than three, and none of them of a traceback."""
        lines = self.err.splitlines()
        assert 1 <= len(lines) <= 3, self.err
        assert lines[0].startswith("error: "), self.err
        assert "Traceback" not in self.err
        return lines


class Shell:
    """A directory with files in it, an environment, and the command that is run there."""

    def __init__(self, home: Path, settings: Mapping[str, str]) -> None:
        self.home = home
        outside = {name: value for name, value in os.environ.items() if not name.startswith("GRAFLOW_CELERY_")}
        self.env = {**outside, **settings, "NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}

    def write(self, name: str, text: str) -> str:
        """A file in the directory; returns its name."""
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return name

    def __call__(self, *arguments: str, timeout: float = TIMEOUT, **env: str) -> Answer:
        """Runs a command to its end."""
        with self.start(*arguments, **env) as command:
            return command.wait(timeout)

    def start(self, *arguments: str, program: Sequence[str] = (), **env: str) -> Command:
        """Starts a command, of ``program`` if it is given. Leave its block, and nothing of it is running any more."""
        return Command([*(program or (str(PROGRAM),)), *arguments], self.home, {**self.env, **env})


class Command:
    """A command that runs. Its output goes to files, so that one can look at it meanwhile."""

    def __init__(self, line: list[str], home: Path, env: Mapping[str, str]) -> None:
        self.mark = secrets.token_hex(8)
        self._out = home / f"{self.mark}.out"
        self._err = home / f"{self.mark}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                line,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=home,
                env={**env, MARK: self.mark},
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    def says(self, text: str, timeout: float = 30.0) -> None:
        """Waits until the command has written ``text``."""
        wait_until(
            lambda: text in self.out + self.err or self.process.poll() is not None,
            timeout=timeout,
            description=f"the command to say '{text}'",
        )
        assert text in self.out + self.err, self.out + self.err

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> None:
        """What Ctrl-C in a terminal does: every process of the foreground group gets the signal."""
        os.killpg(self.process.pid, number)

    def wait(self, timeout: float = TIMEOUT) -> Answer:
        code = self.process.wait(timeout)
        return Answer(code, self.out, self.err)

    def left_running(self) -> list[str]:
        """The processes that the command started, and theirs, that are still there."""
        return [" ".join(process.cmdline()) for process in self._descendants()]

    def _descendants(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._descendants():
            process.kill()
        self.process.wait(TIMEOUT)
