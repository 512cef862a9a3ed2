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
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from graflow_celery.ports import Members

#: Places that processes find by their pids, and bytes of each. Memory that is not written to is not used.
SLOTS, SIZE = 1024, 65_536
_HEAD = struct.Struct("=QII")  # pid, length, crc32
_CURRENT = struct.Struct("=i")  # which of those that have leave runs, -1 for none of them; apart, as it changes often
_TEXT = _HEAD.size + _CURRENT.size

#: An attempt: its node's key, its number, and the graph that it belongs to, if it was added.
Named = tuple[str, int, str]


@dataclass(frozen=True, slots=True)
class Doing:
    """What the process that has a message does.

    Attributes:
        task: the message's id.
        granted: the attempts that have leave, that which runs among them.
        current: the one of them that runs now, by its place; -1 if none does, or leave was assumed for what runs.
        rest: members that nobody began.
    """

    task: str
    granted: tuple[Named, ...] = ()
    rest: Members | None = None
    current: int = -1

    def text(self) -> bytes:
        rest = None if self.rest is None else (self.rest.group, self.rest.first, self.rest.count, self.rest.graph)
        return json.dumps([self.task, self.granted, rest], separators=(",", ":")).encode()

    @classmethod
    def of(cls, text: bytes, current: int) -> Doing:
        task, granted, rest = json.loads(text)
        named = tuple((node, number, graph) for node, number, graph in granted)
        return cls(task, named, None if rest is None else Members(*rest), current)

    @property
    def runs(self) -> Named | None:
        """The attempt that runs now and has leave."""
        return self.granted[self.current] if 0 <= self.current < len(self.granted) else None


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
        if len(text) > SIZE - _TEXT:  # then the message itself says what it is for
            self.wipe(doing.task)
            return
        start = self._start(os.getpid())
        _CURRENT.pack_into(self._memory, start + _HEAD.size, doing.current)
        self._memory[start + _TEXT : start + _TEXT + len(text)] = text
        _HEAD.pack_into(self._memory, start, os.getpid(), len(text), zlib.crc32(text))

    def point(self, task: str, current: int) -> None:
        """Says which attempt runs, of those that were written down last."""
        if os.getpid() == self._main:
            self._here[task] = replace(self._here[task], current=current)
        else:
            _CURRENT.pack_into(self._memory, self._start(os.getpid()) + _HEAD.size, current)

    def wipe(self, task: str) -> None:
        """The message is done."""
        if os.getpid() == self._main:
            self._here.pop(task, None)
        else:
            _HEAD.pack_into(self._memory, self._start(os.getpid()), os.getpid(), 0, 0)

    def read(self, pid: int, task: str) -> Doing | None:
        """What the process ``pid`` does with a message; None if that cannot be told."""
        if pid == self._main or not pid:
            return self._here.get(task)
        start = self._start(pid)
        for _ in range(3):  # it may be about to write
            owner, length, checksum = _HEAD.unpack_from(self._memory, start)
            if owner != pid or not 0 < length <= SIZE - _TEXT:
                return None
            [current] = _CURRENT.unpack_from(self._memory, start + _HEAD.size)
            text = self._memory[start + _TEXT : start + _TEXT + length]
            if zlib.crc32(text) == checksum:
                doing = Doing.of(text, current)
                return doing if doing.task == task else None
        return None

    def _start(self, pid: int) -> int:
        return (pid % SLOTS) * SIZE


class Line:
    """What one message's shift writes on the board, if there is one."""

    def __init__(self, board: Board | None, task: str) -> None:
        self._board = board
        self._task = task
        self._granted: dict[Named, int] = {}
        self._runs: Named | None = None

    def holds(self, granted: Sequence[Named], rest: Members | None) -> None:
        """The attempts that have leave by now, and what nobody began."""
        self._granted = {named: place for place, named in enumerate(granted)}
        if self._board is not None:
            self._board.write(Doing(self._task, tuple(granted), rest, self._place()))

    def runs(self, current: Named) -> None:
        """The attempt that runs from now on."""
        self._runs = current
        if self._board is not None and self._granted:
            self._board.point(self._task, self._place())

    def wipe(self) -> None:
        if self._board is not None:
            self._board.wipe(self._task)

    def _place(self) -> int:
        return -1 if self._runs is None else self._granted.get(self._runs, -1)
