"""What the processes of a worker's pool are doing, for its main process to read: also of one that was killed.

A message may stand for many attempts, one after the other. The process that runs them writes into memory that it shares
with the main process for which it has leave, which of them runs now, and what is left. In pools without processes of
their own the same is kept in this process.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graflow_celery.ports import Members

#: Places that processes find by their pids, and bytes of each. Memory that is not written to is not used.
SLOTS, SIZE = 1024, 65_536
_HEAD = struct.Struct("=QII")  # pid, length, crc32

#: An attempt: its node's key, its number, and the graph that it belongs to, if it was added.
Named = tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class Doing:
    """What the process that has a message does.

    Attributes:
        task: the message's id.
        granted: the attempts that have leave, that which runs among them.
        current: the one that runs now. It is not among ``granted`` if leave was assumed for it.
        rest: members that nobody began.
    """

    task: str
    granted: tuple[Named, ...] = ()
    current: Named | None = None
    rest: Members | None = None

    def text(self) -> bytes:
        rest = None if self.rest is None else (self.rest.group, self.rest.first, self.rest.count, self.rest.graph)
        return json.dumps([self.task, self.granted, self.current, rest], separators=(",", ":")).encode()

    @classmethod
    def of(cls, text: bytes) -> Doing:
        task, granted, current, rest = json.loads(text)
        return cls(
            task,
            tuple((node, number, graph) for node, number, graph in granted),
            None if current is None else tuple(current),
            None if rest is None else Members(*rest),
        )


class Board:
    """The main process of a worker makes it before it forks the others."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SLOTS * SIZE)
        self._here: dict[str, Doing] = {}
        self._main = os.getpid()

    def write(self, doing: Doing) -> None:
        """Says what this process, or this thread of it, does now."""
        if os.getpid() == self._main:
            self._here[doing.task] = doing
            return
        text = doing.text()
        if len(text) > SIZE - _HEAD.size:
            text = Doing(doing.task, (), doing.current).text()
        start = (os.getpid() % SLOTS) * SIZE
        self._memory[start + _HEAD.size : start + _HEAD.size + len(text)] = text
        _HEAD.pack_into(self._memory, start, os.getpid(), len(text), zlib.crc32(text))

    def wipe(self, task: str) -> None:
        """The message is done."""
        if os.getpid() == self._main:
            self._here.pop(task, None)
        else:
            _HEAD.pack_into(self._memory, (os.getpid() % SLOTS) * SIZE, os.getpid(), 0, 0)

    def read(self, pid: int, task: str) -> Doing | None:
        """What the process ``pid`` does with a message; None if that cannot be told."""
        if pid == self._main or not pid:
            return self._here.get(task)
        start = (pid % SLOTS) * SIZE
        for _ in range(3):  # it may be about to write
            owner, length, checksum = _HEAD.unpack_from(self._memory, start)
            if owner != pid or not 0 < length <= SIZE - _HEAD.size:
                return None
            text = self._memory[start + _HEAD.size : start + _HEAD.size + length]
            if zlib.crc32(text) == checksum:
                doing = Doing.of(text)
                return doing if doing.task == task else None
        return None


class Line:
    """What one message's shift writes on the board, if there is one."""

    def __init__(self, board: Board | None, task: str) -> None:
        self._board = board
        self._lock = threading.Lock()
        self._doing = Doing(task)

    def holds(self, granted: Sequence[Named], rest: Members | None) -> None:
        self._put(granted=tuple(granted), rest=rest)

    def runs(self, current: Named) -> None:
        self._put(current=current)

    def wipe(self) -> None:
        if self._board is not None:
            self._board.wipe(self._doing.task)

    def _put(self, **changes: Any) -> None:
        if self._board is None:
            return
        with self._lock:
            old = self._doing
            self._doing = Doing(
                old.task,
                changes.get("granted", old.granted),
                changes.get("current", old.current),
                changes.get("rest", old.rest),
            )
            self._board.write(self._doing)
