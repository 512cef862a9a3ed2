"""Writes the file by which `graflow-celery health` knows that this process lives."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from graflow_celery.health import Pulse, directory, path_of

logger = logging.getLogger(__name__)


class HealthFile:
    """The file of the worker or monitor ``name``. That it cannot be written is said once, and stops nothing else."""

    def __init__(self, setting: str, name: str, interval: float) -> None:
        """
        Args:
            setting: a file, or a directory for the files of several processes; a directory of the user's own if empty.
            interval: seconds between two beats.
        """
        self._path = Path(path_of(setting, name))
        self._name = name
        self._interval = interval
        self._is_default = not setting
        self._answered = False
        self._complained = False
        self._usable = self._prepare()

    def asks(self) -> None:
        """A beat is about to be sent. The server may take its time: this process lives all the same."""
        self._write(asking=True)

    def beat(self, answered: bool) -> None:
        """A beat has come to its end. ``answered``: the server has it."""
        self._answered = answered
        self._write(asking=False)

    def remove(self) -> None:
        """The process ends in good order."""
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            self._complain(error)

    def _write(self, *, asking: bool) -> None:
        if not self._usable:
            return
        pulse = Pulse(self._name, os.getpid(), time.monotonic(), self._interval, asking, self._answered)
        fresh = self._path.with_name(f".{self._path.name}.{pulse.pid}")
        try:
            fresh.write_text(pulse.text(), encoding="utf-8")
            fresh.replace(self._path)
        except FileNotFoundError:
            self._usable = self._prepare()
        except OSError as error:
            self._complain(error)

    def _prepare(self) -> bool:
        """Makes the directory. Anybody may write in the temp directory: there, it has to be this user's own."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=not self._is_default, exist_ok=True)
            if self._is_default and os.lstat(directory()).st_uid != os.getuid():
                raise PermissionError(f"{directory()} belongs to another user")
        except OSError as error:
            self._complain(error)
            return False
        return True

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            logger.warning("graflow-celery health will know nothing of this process: %s", error)
