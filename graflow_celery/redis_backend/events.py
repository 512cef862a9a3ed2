"""Reading a run's event stream: what was, and what comes, blocking on the server instead of asking again and again."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from graflow_celery.ports import EventRecord
from graflow_celery.redis_backend.client import Client

BATCH = 1000
#: What a run's stream is trimmed to, about; `lua/advance.lua` says the same.
MAX_EVENTS = 100_000
#: Fields that are whole numbers; times are in milliseconds.
_NUMBERS = frozenset({"attempt", "count", "duration", "delay"})
_TIMES = frozenset({"duration", "delay"})

Entries = list[tuple[str, EventRecord]]


class EventReader:
    """Reads forward through the events of one run."""

    def __init__(self, client: Client, key: str) -> None:
        self._client = client
        self._key = key
        self._last = "0-0"

    def read(self, block: float | None) -> list[EventRecord]:
        """The next events, at most a thousand. Waits up to ``block`` seconds for the first; None does not wait."""
        wait = None if block is None else max(1, int(block * 1000))
        entries = parse(self._client.xread({self._key: self._last}, count=BATCH, block=wait)).get(self._key, [])
        if entries:
            self._last = entries[-1][0]
        return [record for _, record in entries]

    def history(self) -> Iterator[EventRecord]:
        """Every event so far from where the reader stands."""
        while records := self.read(None):
            yield from records


def newest(
    client: Client, key: str, wanted: Collection[str], most: int | None, scanned: int | None = None
) -> list[EventRecord]:
    """The latest events whose names are ``wanted``, in the order of time: ``most`` of them, None for all.

    Args:
        scanned: how many of the stream's entries are read at the most, from the newest back.
    """
    found: list[EventRecord] = []
    end, seen = "+", 0
    while (most is None or len(found) < most) and (scanned is None or seen < scanned):
        entries = [_entry(*entry) for entry in client.xrevrange(key, end, "-", count=BATCH)]
        if not entries:
            break
        found += [record for _, record in entries if record["event"] in wanted]
        seen, end = seen + len(entries), f"({entries[-1][0]}"
    return found[:most][::-1]


def parse(reply: Any) -> dict[str, Entries]:
    """What XREAD answered, by stream: each entry's id and record. In RESP2's form or RESP3's."""
    if not reply:
        return {}
    streams = reply.items() if isinstance(reply, dict) else reply
    return {key.decode(): [_entry(*entry) for entry in _flat(entries)] for key, entries in streams}


def _flat(entries: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """The entries of a stream, which the client wraps in one more list where it speaks RESP3."""
    nested = entries and isinstance(entries[0], list) and not isinstance(entries[0][0], bytes)
    return list(entries[0] if nested else entries)


def _entry(entry_id: bytes, fields: dict[bytes, bytes]) -> tuple[str, EventRecord]:
    name = entry_id.decode()
    return name, _record(name, fields)


def _record(entry_id: str, fields: dict[bytes, bytes]) -> EventRecord:
    record: dict[str, Any] = {"at": int(entry_id.partition("-")[0]) / 1000}
    for name, value in ((name.decode(), value.decode()) for name, value in fields.items()):
        if name in _NUMBERS:
            record[name] = int(value) / 1000 if name in _TIMES else int(value)
        elif value or name == "event":
            record[name] = value
    return record
