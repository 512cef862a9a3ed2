"""Whether a worker or a monitor of this machine lives: a file that its beats write anew, and a look at it.

The look costs no round trip and next to no imports: this module needs next to nothing of the standard library,
because a probe runs every few seconds. Both sides compute the same path. Times are the machine's monotonic clock, which
all of its processes share, so that setting the clock makes nobody ill.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

VARIABLE = "GRAFLOW_CELERY_HEALTH_FILE"
CONFIG_FILE_VARIABLE = "GRAFLOW_CELERY_CONFIG"
SUFFIX = ".health"
#: Beats that may be missed.
BEATS = 3
#: Seconds that a beat may take while the server does not answer: as long as the client tries. Then the process lives.
LONGEST_BEAT = 300.0


class Pulse(NamedTuple):
    """What a process last wrote of itself.

    Attributes:
        name: of the worker, or of the monitor.
        at: when it was written, by this machine's monotonic clock. ``interval``: seconds between two beats.
        asking: a beat was on its way to the server then.
        answered: the server answered the last beat that came to its end.
    """

    name: str
    pid: int
    at: float
    interval: float
    asking: bool
    answered: bool

    def text(self) -> str:
        fields = (self.name, self.pid, repr(self.at), self.interval, int(self.asking), int(self.answered))
        return "\n".join(str(field) for field in fields)

    @classmethod
    def of(cls, text: str) -> Pulse:
        """Raises ValueError for what is no pulse."""
        name, pid, at, interval, asking, answered = text.split("\n")
        return cls(name, int(pid), float(at), float(interval), asking == "1", answered == "1")


class Verdict(NamedTuple):
    """Whether all is well, in one line."""

    healthy: bool
    text: str


def setting() -> str:
    """The setting ``health_file`` as the environment or the settings file has it, without loading the settings."""
    value = os.environ.get(VARIABLE)
    path = os.environ.get(CONFIG_FILE_VARIABLE)
    if value is not None or path is None:
        return value or ""
    tomllib = importlib.import_module("tomllib")  # costs as much as all the rest, and few have a settings file
    with open(path, "rb") as file:
        return str(tomllib.load(file).get("health_file", ""))


def directory() -> str:
    """Where the files lie if the setting says nothing: a directory of this user's own."""
    return os.path.join(os.environ.get("TMPDIR") or "/tmp", f"graflow-celery-{os.getuid()}")


def path_of(setting: str, name: str) -> str:
    """The file of the worker or monitor ``name``: the setting, or in it if it is a directory."""
    if setting and not is_directory(setting):
        return setting
    return os.path.join(setting or directory(), f"{name.replace(os.sep, '_')}{SUFFIX}")


def is_directory(setting: str) -> bool:
    return setting.endswith(os.sep) or os.path.isdir(setting)


def look(setting: str, worker: str | None = None, max_age: float | None = None, *, ready: bool = False) -> Verdict:
    """Judges the processes that wrote their files here, or ``worker`` alone.

    Args:
        max_age: seconds since the last sign of life that are allowed; BEATS of the process's own beats by default.
        ready: the server has to have answered the last beat, too.
    """
    pulses = list(_read(_paths(setting, worker)))
    if not pulses:
        who = f"no file of '{worker}'" if worker is not None else "no file of a worker or monitor"
        return Verdict(False, f"{who} at {path_of(setting, worker or '*')}: it does not run, or as another user")
    problems = [text for pulse in pulses if (text := _problem(pulse, max_age, ready))]
    if problems:
        return Verdict(False, "; ".join(problems))
    names = ", ".join(pulse.name for pulse in pulses)
    answers = all(pulse.answered for pulse in pulses)
    return Verdict(True, f"{names}: alive" + ("" if answers else ", but the server does not answer"))


def _problem(pulse: Pulse, max_age: float | None, ready: bool) -> str:
    age = time.monotonic() - pulse.at
    if age < 0:
        return f"{pulse.name}: its file is older than this machine's last start"
    limit = max_age if max_age is not None else BEATS * pulse.interval
    if pulse.asking and max_age is None:
        limit = max(limit, LONGEST_BEAT)
    if age > limit:
        return f"{pulse.name} (pid {pulse.pid}): no sign of life for {age:.1f} s"
    if not _runs(pulse.pid):
        return f"{pulse.name}: its process {pulse.pid} is gone"
    if ready and (not pulse.answered or (pulse.asking and age > BEATS * pulse.interval)):
        return f"{pulse.name}: the server does not answer it"
    return ""


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


def _paths(setting: str, worker: str | None) -> list[str]:
    if worker is not None or (setting and not is_directory(setting)):
        return [path_of(setting, worker or "")]
    where = setting or directory()
    try:
        return sorted(os.path.join(where, name) for name in os.listdir(where) if name.endswith(SUFFIX))
    except FileNotFoundError:
        return []


def _read(paths: list[str]) -> Iterator[Pulse]:
    for path in paths:
        try:
            with open(path, encoding="utf-8") as file:
                yield Pulse.of(file.read())
        except (FileNotFoundError, ValueError):
            continue


def quick(arguments: list[str]) -> int | None:
    """Runs ``graflow-celery health ARGUMENTS`` and returns its exit code; None if there is more to say about them."""
    options: dict[str, str] = {}
    ready = False
    words = iter(arguments)
    for word in words:
        name, _, value = word.partition("=")
        if name == "--ready" and not value:
            ready = True
        elif name in ("--worker", "--max-age"):
            options[name] = value or next(words, "")
        else:
            return None
    if not all(options.values()):
        return None
    return _tell(options, ready)


def _tell(options: Mapping[str, str], ready: bool) -> int | None:
    try:
        max_age = float(options["--max-age"]) if "--max-age" in options else None
        verdict = look(setting(), options.get("--worker"), max_age, ready=ready)
    except (ValueError, OSError):
        return None
    sys.stdout.write(f"{verdict.text}\n")
    return 0 if verdict.healthy else 1
