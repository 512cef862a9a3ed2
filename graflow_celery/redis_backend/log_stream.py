"""The lines that nodes of a run logged, as a stream of the run's own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graflow_celery.redis_backend.client import Client
from graflow_celery.redis_backend.keys import Keys

#: Lines of a run that are kept, the newest; some more may be.
KEPT = 10_000
BATCH = 500
_NUMBERS = frozenset({"attempt", "dropped"})
_JSON = frozenset({"extra"})

#: ``at`` (seconds since the epoch, by the worker's clock), ``level``, ``logger``, ``message``, ``node``, ``attempt``,
#: ``worker``; ``extra`` and ``error`` (a traceback) where there are some; ``dropped``: so many lines are missing here.
Line = Mapping[str, Any]


def append(client: Client, keys: Keys, ttl: int, lines: Sequence[tuple[str, Line]]) -> None:
    """Adds lines to the streams of their runs, in one round trip; each lives for ``ttl`` seconds after its last."""
    with client.pipeline(transaction=False) as pipe:
        for run, line in lines:
            pipe.xadd(keys.run(run).logs, _fields(line), maxlen=KEPT, approximate=True)
        for run in {run for run, _ in lines}:
            pipe.expire(keys.run(run).logs, ttl)
        pipe.execute()


class LogReader:
    """Reads forward through the lines of one run."""

    def __init__(self, client: Client, key: str) -> None:
        self._client = client
        self._key = key
        self._last = "0-0"

    def read(self, block: float | None = None) -> list[Line]:
        """The next lines, some hundreds at most. Waits up to ``block`` seconds for the first; None does not wait."""
        wait = None if block is None else max(1, int(block * 1000))
        reply = self._client.xread({self._key: self._last}, count=BATCH, block=wait)
        entries = _entries(reply)
        if entries:
            self._last = entries[-1][0].decode()
        return [_line(fields) for _, fields in entries]


def _entries(reply: Any) -> list[tuple[bytes, Mapping[bytes, bytes]]]:
    """The one stream's entries, in RESP2's form or RESP3's."""
    if not reply:
        return []
    [entries] = reply.values() if isinstance(reply, dict) else [found for _, found in reply]
    nested = entries and isinstance(entries[0], list) and not isinstance(entries[0][0], bytes)
    return list(entries[0] if nested else entries)


def _fields(line: Line) -> dict[str, str]:
    return {name: json.dumps(value, default=repr) if name in _JSON else str(value) for name, value in line.items()}


def _line(fields: Mapping[bytes, bytes]) -> Line:
    return {name: _value(name, text) for name, text in _decoded(fields)}


def _decoded(fields: Mapping[bytes, bytes]) -> Iterable[tuple[str, str]]:
    return ((name.decode(), value.decode(errors="replace")) for name, value in fields.items())


def _value(name: str, text: str) -> Any:
    if name == "at":
        return float(text)
    return int(text) if name in _NUMBERS else json.loads(text) if name in _JSON else text
