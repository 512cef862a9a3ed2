"""Checkpoints as files below a directory, which is made when the first of them is saved."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from graflow_celery.errors import CheckpointError


class DirectoryCheckpointStore:
    """See :class:`graflow_celery.ports.CheckpointStore`. A path is that of a file.

    Raises:
        CheckpointError: from each method, where the file system refuses; it names the file.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = Path(root)

    def save(self, name: str, data: bytes) -> str:
        path = self._root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            except BaseException:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise CheckpointError(str(path), f"it cannot be written: {error.strerror}. Choose another path.") from error
        return str(path)

    def load(self, name: str) -> bytes:
        path = self._root / name
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise CheckpointError(
                str(path), "there is no such file. Give the path that checkpoint() returned."
            ) from None
        except OSError as error:
            raise CheckpointError(str(path), f"it cannot be read: {error.strerror}.") from error

    def names(self) -> list[str]:
        found = (path for path in self._root.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(path.relative_to(self._root).as_posix() for path in found)
