"""Large values that the processes of one worker share: files in memory, each fetched by one of them, mapped by all.

The directory belongs to the worker's main process, is readable for its user alone, and goes when the worker does; what
a killed one leaves behind, the next one to start removes. What lies in it has been checked and is decompressed.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import mmap
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from graflow_celery.codec.envelope import Content, Serializer

logger = logging.getLogger(__name__)

#: Seconds for which one process waits for another that fetches the same; then it fetches by itself.
PATIENCE = 10.0
_MEMORY = Path("/dev/shm")
_HEAD = 16
_PREFIX = "graflow-celery-content"


class SharedContent:
    """Content by name in files. Nothing here fails: where it cannot be shared, every process has its own.

    Args:
        most: bytes of files; the least used are dropped first. What a process has mapped stays until it lets go.
    """

    def __init__(self, directory: Path, most: int) -> None:
        self.directory = directory
        self._most = most

    def find(self, name: str) -> Content | None:
        """The content, mapped, or None."""
        path = self.directory / name
        try:
            with path.open("rb") as file:
                data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            os.utime(path)
        except (OSError, ValueError):  # it is not there, or was just made and is empty
            return None
        serializer: Serializer = bytes(data[:_HEAD]).rstrip(b"\0").decode()  # type: ignore[assignment]  # keep() wrote it
        return Content(serializer, data[_HEAD:])

    def keep(self, name: str, content: Content) -> None:
        """Puts content there for the other processes, unless it is too large for that."""
        size = len(content.payload) + _HEAD
        if size > self._most:
            return
        draft = self.directory / f"{name}.{os.getpid()}.{threading.get_ident()}"
        try:
            self._make_room(size)
            with draft.open("wb") as file:
                file.write(content.serializer.encode().ljust(_HEAD, b"\0"))
                file.write(content.payload)
            draft.rename(self.directory / name)
        except OSError as error:  # the memory for files is full, or the directory is gone
            logger.debug("content %s is not shared: %s", name, error)
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """One process at a time, but nobody waits for more than PATIENCE: the other may hang."""
        try:
            file = (self.directory / f"{name[:2]}.lock").open("ab")  # 256 of them, however many values there are
        except OSError:
            yield
            return
        with file:
            if not _locked(file.fileno()):
                logger.debug("content %s is fetched by another process, which takes its time", name)
            yield

    def _make_room(self, size: int) -> None:
        files = [(entry.stat(), entry.path) for entry in os.scandir(self.directory) if not entry.name.endswith(".lock")]
        held = sum(found.st_size for found, _ in files)
        for found, path in sorted(files, key=lambda file: file[0].st_mtime_ns):
            if held + size <= self._most:
                return
            Path(path).unlink(missing_ok=True)
            held -= found.st_size


def _locked(number: int) -> bool:
    """Whether the lock of a file is had within PATIENCE. It is let go when the file is closed."""
    with contextlib.suppress(OSError):
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    own = os.dup(number)  # for a thread that may outlast the file
    had = threading.Event()

    def wait() -> None:
        with contextlib.suppress(OSError):
            fcntl.flock(own, fcntl.LOCK_EX)
        had.set()
        os.close(own)

    threading.Thread(target=wait, name="graflow-content-lock", daemon=True).start()
    return had.wait(PATIENCE)


def make_directory(most: int) -> SharedContent | None:
    """A directory for this process and its children, in memory where there is such a place; None if none can be made.

    It takes a quarter of what is free there at most, and removes directories whose process is gone.
    """
    base = _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    prefix = f"{_PREFIX}-{os.getuid()}"
    try:
        for left in base.glob(f"{prefix}-*"):
            if not _lives(left.name):
                shutil.rmtree(left, ignore_errors=True)
        room = os.statvfs(base)
        directory = Path(tempfile.mkdtemp(prefix=f"{prefix}-{os.getpid()}-", dir=base))
    except OSError as error:
        logger.debug("the processes of this worker share no content: %s", error)
        return None
    return SharedContent(directory, min(most, room.f_bavail * room.f_frsize // 4))


def _lives(name: str) -> bool:
    pid = name.removeprefix(_PREFIX).split("-")[2]
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True
