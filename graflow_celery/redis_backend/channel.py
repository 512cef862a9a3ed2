"""The channel of a run in Redis: one hash, each change of a value one atomic step."""

from __future__ import annotations

from typing import Any

from graflow_celery.redis_backend.client import Client, Scripts
from graflow_celery.redis_backend.values import LARGEST_INTEGER, ValueStore, is_number


class RedisChannel:
    """See :class:`graflow_celery.ports.Channel`."""

    def __init__(self, client: Client, scripts: Scripts, key: str, values: ValueStore, ttl: int) -> None:
        self._client = client
        self._scripts = scripts
        self._key = key
        self._values = values
        self._ttl = ttl

    def set(self, key: str, value: Any) -> None:
        """Raises SerializationError, naming the key and the type, for a value that the settings do not allow."""
        field = self._values.pack_entry(value, _what(key))
        with self._client.pipeline(transaction=True) as pipe:
            pipe.hset(self._key, key, field)
            pipe.expire(self._key, self._ttl)
            pipe.execute()

    def get(self, key: str, default: Any = None) -> Any:
        field = self._client.hget(self._key, key)
        return default if field is None else self._values.unpack(field, _what(key))

    def delete(self, key: str) -> bool:
        return bool(self._client.hdel(self._key, key))

    def exists(self, key: str) -> bool:
        return bool(self._client.hexists(self._key, key))

    def keys(self) -> list[str]:
        return [key.decode() for key in self._client.hkeys(self._key)]

    def clear(self) -> None:
        self._client.delete(self._key)

    def append(self, key: str, value: Any) -> int:
        return int(self._change("append", key, self._values.pack(value, _what(key)), "a list"))

    def prepend(self, key: str, value: Any) -> int:
        return int(self._change("prepend", key, self._values.pack(value, _what(key)), "a list"))

    def atomic_add(self, key: str, amount: int | float = 1) -> int | float:
        """Exact for integers up to 2**53. Raises TypeError if the key holds no number, or ``amount`` is none."""
        if not is_number(amount):
            raise TypeError(
                f"Channel key '{key}': atomic_add takes a finite number up to {LARGEST_INTEGER}, not {amount!r}."
            )
        total = self._change("add", key, repr(amount).encode(), "a number").decode()
        return float(total) if any(sign in total for sign in ".en") else int(total)

    def _change(self, what: str, key: str, operand: bytes, kind: str) -> Any:
        reply = self._scripts["change"](keys=[self._key], args=[what, key, operand, self._ttl], client=self._client)
        if reply[0] == 0:
            raise TypeError(f"Channel key '{key}' does not hold {kind}: nothing was added.")
        return reply[1]


def _what(key: str) -> str:
    return f"channel key '{key}'"
