"""Reading a run's event stream: what was, and what comes, blocking on the server instead of asking again and again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from graflow_celery.ports import EventRecord
from graflow_celery.redis_backend.client import Client

BATCH = 1000
#: Fields that are whole numbers; a duration is in milliseconds.
_NUMBERS = frozenset({"attempt", "count", "duration"})


class EventReader:
    """Reads forward through the events of one run."""

    def __init__(self, client: Client, key: str) -> None:
        self._client = client
        self._key = key
        self._last = "0-0"

    def read(self, block: float | None) -> list[EventRecord]:
        """The next events, at most a thousand. Waits up to ``block`` seconds for the first; None does not wait."""
        wait = None if block is None else max(1, int(block * 1000))
        reply = self._client.xread({self._key: self._last}, count=BATCH, block=wait)
        entries = _entries(reply)
        if entries:
            self._last = entries[-1][0].decode()
        return [_record(entry_id.decode(), fields) for entry_id, fields in entries]

    def history(self) -> Iterator[EventRecord]:
        """Every event so far from where the reader stands."""
        while records := self.read(None):
            yield from records


def _entries(reply: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """XREAD's entries for the only stream asked for, in RESP2's form or RESP3's."""
    if not reply:
        return []
    streams = next(iter(reply.values())) if isinstance(reply, dict) else reply[0][1]
    if streams and isinstance(streams[0], list) and not isinstance(streams[0][0], bytes):
        streams = streams[0]
    return list(streams)


def _record(entry_id: str, fields: dict[bytes, bytes]) -> EventRecord:
    record: dict[str, Any] = {"at": int(entry_id.partition("-")[0]) / 1000}
    for name, value in ((name.decode(), value.decode()) for name, value in fields.items()):
        if name in _NUMBERS:
            record[name] = int(value) / 1000 if name == "duration" else int(value)
        elif value or name == "event":
            record[name] = value
    return record
