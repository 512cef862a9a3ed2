"""Round trips of this process to its servers: what its connections were given to send, at the connections themselves.

A pipeline's commands are one piece, and so one round trip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from redis.connection import AbstractConnection

#: What a connection is begun with, once: no part of a call.
_GREETINGS = (b"HELLO", b"CLIENT", b"SELECT", b"AUTH")


@contextmanager
def counted(prefix: str) -> Iterator[Counter[str]]:
    """Round trips for the time of the block, by what they are for: ``content``, ``run store``, ``broker``.

    ``uploads`` counts those of ``content`` that carry blobs. ``prefix``: that of the engine's keys.
    """
    trips: Counter[str] = Counter()
    send: Any = AbstractConnection.send_packed_command

    def counting(self: AbstractConnection, command: Any, check_health: bool = True) -> None:
        packed = command if isinstance(command, bytes) else b"".join(_pieces(command))
        trips.update(_purposes(packed, prefix.encode()))
        send(self, command, check_health)

    AbstractConnection.send_packed_command = counting  # type: ignore[method-assign]
    try:
        yield trips
    finally:
        AbstractConnection.send_packed_command = send  # type: ignore[method-assign]


def _purposes(packed: bytes, prefix: bytes) -> list[str]:
    name = packed.split(b"\r\n", 3)[2]
    if name in _GREETINGS:
        return []
    if prefix + b":blob:" in packed and not name.startswith(b"EVAL"):
        return ["content", *(["uploads"] if b"\r\nSET\r\n" in packed else [])]
    if prefix + b":" in packed:
        return ["run store"]
    if name in (b"PING", b"SCRIPT"):
        return [name.decode().lower()]
    return ["broker"]


def _pieces(command: str | Iterable[Any]) -> Iterator[bytes]:
    for piece in [command] if isinstance(command, str) else command:
        yield piece.encode() if isinstance(piece, str) else bytes(piece)
