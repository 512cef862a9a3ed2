"""What a real server was asked for, command by command: its slow log with a threshold of nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

#: What a command may take the server, in microseconds: it serves nobody else meanwhile.
LONGEST = 5_000
#: Commands that answer with all that is under a key.
WHOLE = frozenset({"HGETALL", "HVALS", "HKEYS", "SMEMBERS"})
#: Of these so is what is between the first and the last.
RANGES = frozenset({"ZRANGE", "LRANGE"})
_MORE = re.compile(rb"\.\.\. \((\d+) more arguments\)")


@dataclass(frozen=True, slots=True)
class Logged:
    """One command. ``count``: of its arguments; ``words``: the first of them, ``micros``: what it took the server."""

    name: str
    words: tuple[bytes, ...]
    count: int
    micros: int

    @property
    def key(self) -> str:
        """The kind of the first key: what follows the run's id, or all of it."""
        return next((word.rpartition(b":")[2].decode(errors="replace") for word in self.words if b":" in word), "")

    @property
    def reads_all(self) -> bool:
        """Whether its answer grows with what is under the key."""
        return self.name in WHOLE or (self.name in RANGES and self.words[1:3] == (b"0", b"-1"))


@dataclass
class ServerLog:
    """The commands of a block, in no order. A script counts as one; so does each command of a transaction."""

    commands: list[Logged] = field(default_factory=list)

    def longest(self) -> Logged:
        """The command with the most arguments."""
        return max(self.commands, key=lambda one: one.count)

    def whole(self, *kinds: str) -> list[Logged]:
        """Commands that read all of a key of one of these kinds."""
        return [one for one in self.commands if one.reads_all and one.key in kinds]

    def slow(self, micros: int = LONGEST) -> list[Logged]:
        """Those that took longer; on a machine that is busy, a command may have had to wait for a processor."""
        return [one for one in self.commands if one.micros > micros]


@contextmanager
def logged(client: Any) -> Iterator[ServerLog]:
    """Keeps what the server is asked for in the block; to be read after it."""
    log = ServerLog()
    client.config_set("slowlog-max-len", 1_000_000)
    client.config_set("slowlog-log-slower-than", 0)
    client.slowlog_reset()
    try:
        yield log
    finally:
        client.config_set("slowlog-log-slower-than", 10_000)
        log.commands = [_logged(entry) for entry in client.execute_command("SLOWLOG GET", 1_000_000)]
        client.slowlog_reset()


def _logged(entry: Any) -> Logged:
    words, micros = (entry["command"], entry["duration"]) if isinstance(entry, dict) else (entry[3], entry[2])
    words = tuple(words.split(b" ") if isinstance(words, bytes) else words)
    more = _MORE.fullmatch(words[-1])
    count = len(words) - 1 if more is None else len(words) - 2 + int(more[1])
    return Logged(words[0].decode().upper(), words[1:], count, int(micros))
