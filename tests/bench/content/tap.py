"""What a server was asked for, read from its MONITOR stream; and how many bytes went in and out of it."""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import redis

from graflow_celery.testing import wait_until

_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|.)")
_PLAIN = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"a": b"\a", b"b": b"\b"}
_WATCHED = re.compile(rb'"(?:SET|GET|GETEX|LPUSH|RPUSH)" ', re.IGNORECASE)
_PUSHES = ("LPUSH", "RPUSH")


@dataclass(frozen=True, slots=True)
class Seen:
    """A command: its name, its key, and how many bytes its value has, if it has one."""

    name: str
    key: str
    size: int


@dataclass(frozen=True, slots=True)
class Message:
    """A Celery message that was pushed onto a queue, or a record of graflow's."""

    size: int
    queue: str
    task: str
    arguments: str
    workload: str

    def __str__(self) -> str:
        return f"{self.size:,} B: {self.task} on '{self.queue}' of {self.workload}: {self.arguments}"


class Tap:
    """What is asked of the server at ``url`` while the block runs: ``with Tap(url) as tap``.

    It listens on a connection of its own, in a thread. What it notes is complete when the block has ended.
    """

    def __init__(self, url: str, workload: str = "") -> None:
        """``workload``: how messages name what sent them."""
        self.workload = workload
        self.seen: list[Seen] = []
        self.largest: dict[str, Message] = {}
        self._client = redis.Redis.from_url(url)
        self._mark = secrets.token_hex(8)
        self._ended = threading.Event()

    def uploads(self, key: str) -> list[Seen]:
        """What was set whose key has ``key`` in it."""
        return [item for item in self.seen if item.name == "SET" and key in item.key]

    def downloads(self, key: str) -> list[Seen]:
        return [item for item in self.seen if item.name in ("GET", "GETEX") and key in item.key]

    def __enter__(self) -> Tap:
        connection: Any = self._client.connection_pool.get_connection()
        connection.send_command("MONITOR")
        connection.read_response()
        connection._sock.settimeout(None)
        self._connection = connection
        self._thread = threading.Thread(target=self._listen, args=(connection._sock.makefile("rb"),), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.echo(self._mark)
        wait_until(self._ended.is_set, timeout=60, description="the tap to have read what was asked")
        self._thread.join()
        self._connection.disconnect()
        self._client.close()

    def _listen(self, stream: BinaryIO) -> None:
        with stream:
            for line in stream:
                if self._mark.encode() in line[-64:]:
                    break
                found = _WATCHED.search(line, 0, 200)
                if found:
                    self._note(line[found.start() :])
        self._ended.set()

    def _note(self, command: bytes) -> None:
        name, key, *values = command.rstrip(b"\r\n")[1:-1].split(b'" "')
        self.seen.append(Seen(name.decode().upper(), key.decode(errors="replace"), _length(values[0]) if values else 0))
        if self.seen[-1].name in _PUSHES:
            for value in values:
                self._message(key.decode(), _unescaped(value))

    def _message(self, queue: str, payload: bytes) -> None:
        try:
            read = json.loads(payload)
            headers = read["headers"] if "headers" in read else {"task": f"record of {read['task_id']}"}
        except (ValueError, TypeError, KeyError):
            return  # another list than a queue
        task = str(headers.get("task", "control"))
        if task not in self.largest or len(payload) > self.largest[task].size:
            told = str(headers.get("argsrepr", ""))[:80]
            self.largest[task] = Message(len(payload), queue, task, told, self.workload)


@dataclass
class Moved:
    """Bytes that went into and out of a server, and the commands that it was sent."""

    bytes_in: int = 0
    bytes_out: int = 0
    commands: int = 0

    def __str__(self) -> str:
        return f"{amount(self.bytes_in)} in, {amount(self.bytes_out)} out"


@contextmanager
def moved(server: Any) -> Iterator[Moved]:
    """Counts for the time of the block, by the server's own statistics; what stands in it is set at the end."""
    names = ("total_net_input_bytes", "total_net_output_bytes", "total_commands_processed")
    before, found = server.info("stats"), Moved()
    yield found
    after = server.info("stats")
    found.bytes_in, found.bytes_out, found.commands = (int(after[name] - before[name]) for name in names)


def amount(count: float) -> str:
    """Of bytes, in words."""
    if count < 10_000:
        return f"{count:,.0f} B"
    return f"{count / 1e3:,.1f} KB" if count < 1e6 else f"{count / 1e6:,.2f} MB"


def _length(escaped: bytes) -> int:
    """Of the bytes that ``escaped`` stands for; values of many megabytes come by."""
    rest = escaped.replace(rb"\\", b"_")
    as_hex = rest.count(rb"\x")
    return len(rest) - 3 * as_hex - (rest.count(b"\\") - as_hex)


def _unescaped(escaped: bytes) -> bytes:
    def plain(found: re.Match[bytes]) -> bytes:
        code = found[1]
        return bytes.fromhex(code[1:].decode()) if len(code) == 3 else _PLAIN.get(code, code)

    return _ESCAPE.sub(plain, escaped)
