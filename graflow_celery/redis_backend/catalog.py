"""The runs that the store has, the newest first, some at a time."""

from __future__ import annotations

from collections.abc import Iterator

from graflow_celery.redis_backend.client import Client
from graflow_celery.redis_backend.keys import Keys

#: Runs whose fields are read in one round trip.
SLICE = 200


class RunCatalog:
    """Reads what the store notes of runs, in the order in which they were started."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def newest(self, most: int, after: str = "") -> Iterator[tuple[str, dict[str, str]]]:
        """Ids and fields of up to ``most`` runs that are still there: those started before ``after``, if it is given.

        Of an ``after`` that the store does not have any more, the newest.
        """
        start = 0
        if after:
            rank = self._client.zrevrank(self._keys.runs, after)
            start = 0 if rank is None else rank + 1
        end = start + most
        while start < end:
            size = min(SLICE, end - start)
            names = [name.decode() for name in self._client.zrevrange(self._keys.runs, start, start + size - 1)]
            if not names:
                return
            with self._client.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.hgetall(self._keys.run(name).meta)
                found = pipe.execute()
            for name, fields in zip(names, found, strict=True):
                if fields:
                    yield name, {field.decode(): value.decode() for field, value in fields.items()}
            start += size
