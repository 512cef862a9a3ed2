"""The channel of a run in Redis: one hash, each change of a value one atomic step."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from graflow_celery.core.channel_rules import no_list, no_number, require_amount, require_ttl, too_large
from graflow_celery.redis_backend.client import Client, Scripts
from graflow_celery.redis_backend.keys import lock_keys
from graflow_celery.redis_backend.locks import LEASE, RedisLock
from graflow_celery.redis_backend.values import ValueStore


class RedisChannel:
    """See :class:`graflow_celery.ports.Channel`.

    Values that the settings' serializers cannot hold are refused with a SerializationError that names key and type.
    """

    def __init__(
        self, client: Client, scripts: Scripts, key: str, values: ValueStore, ttl: int, lease: float = LEASE
    ) -> None:
        """
        Args:
            key: the run's hash.
            ttl: seconds for which the hash lives after a change.
            lease: seconds after which a lock is free whose holder died.
        """
        self._client = client
        self._scripts = scripts
        self._key = key
        self._values = values
        self._ttl = ttl
        self._lease = lease

    def set(self, key: str, value: Any, ttl: float | None = None) -> None:
        require_ttl(key, ttl)
        self._change("set", key, self._values.pack_entry(value, _what(key)), ttl)

    def get(self, key: str, default: Any = None) -> Any:
        field = self._look("get", key)
        return default if field is None else self._values.unpack(field, _what(key))

    def delete(self, key: str) -> bool:
        return bool(self._change("delete", key)[1])

    def exists(self, key: str) -> bool:
        return bool(self._look("exists", key))

    def keys(self) -> list[str]:
        return [key.decode() for key in self._look("keys")]

    def clear(self) -> None:
        self._client.delete(self._key)

    def append(self, key: str, value: Any, ttl: float | None = None) -> int:
        return self._extend("append", key, value, ttl)

    def prepend(self, key: str, value: Any, ttl: float | None = None) -> int:
        return self._extend("prepend", key, value, ttl)

    def atomic_add(self, key: str, amount: int | float = 1) -> int | float:
        require_amount(key, amount)
        done, *total = self._change("add", key, repr(amount).encode())
        if done != 1:
            raise no_number(key) if done == 0 else too_large(key)
        text = total[0].decode()
        return float(text) if any(sign in text for sign in ".en") else int(text)

    def lock(self, key: str, timeout: float = 10.0) -> AbstractContextManager[None]:
        return RedisLock(self._client, self._scripts, lock_keys(self._key, key), key, self._lease).held(timeout)

    def _extend(self, what: str, key: str, value: Any, ttl: float | None) -> int:
        require_ttl(key, ttl)
        done, *length = self._change(what, key, self._values.pack(value, _what(key)), ttl)
        if done != 1:
            raise no_list(key)
        return int(length[0])

    def _change(self, what: str, key: str, operand: bytes = b"", ttl: float | None = None) -> list[Any]:
        expires = "" if ttl is None else max(1, int(ttl * 1000))
        args: list[bytes | str | int] = [what, key, operand, self._ttl, expires]
        reply: list[Any] = self._scripts["change"](keys=[self._key], args=args, client=self._client)
        return reply

    def _look(self, what: str, key: str = "") -> Any:
        return self._scripts["look"](keys=[self._key], args=[what, key], client=self._client)


def _what(key: str) -> str:
    return f"channel key '{key}'"
