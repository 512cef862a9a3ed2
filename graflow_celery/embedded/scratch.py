"""A private directory for sockets, settings and logs, which an interrupt cannot leave behind."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import weakref
from pathlib import Path

LONGEST_SOCKET_PATH = 100
"""What the kernels take (104 on macOS, 108 on Linux), with room to spare."""


class ScratchDirectory:
    """Removed by :meth:`remove`, when this object is collected, and at the latest when this process ends.

    Its path is known, and its removal arranged for, before it is made. It may be made again after it was removed, at
    the same path.
    """

    def __init__(self) -> None:
        name = f"graflow-{secrets.token_hex(6)}"
        usual = Path(tempfile.gettempdir()).resolve()
        short = len(str(usual / name)) + len("/server.sock") <= LONGEST_SOCKET_PATH
        self.path = (usual if short else Path("/tmp")) / name
        self._finalizer = weakref.finalize(self, _remove, self.path, os.getpid())

    def make(self) -> Path:
        """Makes it, for this user alone, unless it is there."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        return self.path

    def remove(self) -> None:
        _remove(self.path, os.getpid())


def _remove(path: Path, owner: int) -> None:
    """Does nothing in a child that was forked from the owner."""
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)
