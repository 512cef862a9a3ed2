"""What the processes of a worker count: looks for content, bytes to and from the store, spans that they dropped.

The main process makes the memory before it forks the others, and tells its sums with its beats. Each process writes to
a row of its own, so there is no lock that one which is killed could keep.
"""

from __future__ import annotations

import mmap
import struct
import threading
from typing import Literal

Kind = Literal["memory", "shared", "store", "bytes_in", "bytes_out", "spans_dropped"]
KINDS: tuple[Kind, ...] = ("memory", "shared", "store", "bytes_in", "bytes_out", "spans_dropped")
#: What their names begin with among the counts of queues, which no queue's name does.
MARK = "\0content:"
ROWS = 1024
_ROW = struct.Struct(f"={len(KINDS)}Q")


class SharedCounts:
    """The rows of all processes of a worker. Forked children have the same memory."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, ROWS * _ROW.size)

    def of(self, process: int | None) -> BlobCounts:
        """The row of a process of the pool, by its number in it, which its successor has too; None: the main one."""
        return BlobCounts(self._memory, 0 if process is None else 1 + process % (ROWS - 1))

    def sums(self) -> dict[str, int]:
        """How much was counted so far by all processes, by MARK and kind."""
        rows = _ROW.iter_unpack(self._memory[:])
        return {f"{MARK}{kind}": sum(column) for kind, column in zip(KINDS, zip(*rows, strict=True), strict=True)}


class BlobCounts:
    """The row of one process, whose threads write to it in turn."""

    def __init__(self, memory: mmap.mmap, row: int) -> None:
        self._memory = memory
        self._offset = row * _ROW.size
        self._lock = threading.Lock()

    def add(self, kind: Kind, count: int = 1) -> None:
        with self._lock:
            row = list(_ROW.unpack_from(self._memory, self._offset))
            row[KINDS.index(kind)] += count
            _ROW.pack_into(self._memory, self._offset, *row)
