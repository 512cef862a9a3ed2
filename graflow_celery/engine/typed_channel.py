"""The channel of a run for messages of one type, checked where they are put in and where they are taken out."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar, cast

from graflow_celery.engine.schema import Misfit, from_plain, is_schema, to_plain
from graflow_celery.ports import Channel

Message = TypeVar("Message")


class TypedChannel(Generic[Message]):
    """A run's channel for messages of one type: a TypedDict, a dataclass or a pydantic model.

    ``set``, ``send``, ``append`` and ``prepend`` take such messages alone; ``get`` and ``receive`` give them back,
    built anew. In the channel itself they are plain values, mostly JSON (see :mod:`graflow_celery.engine.schema`), so
    any task can read them there. The keys are those of the run's channel.

    Raises:
        TypeError: ``message_type`` is none of these. From the methods: a message, given or found, does not fit; the
            error names the key and the place in the message.
    """

    def __init__(self, channel: Channel, message_type: type[Message]) -> None:
        if not is_schema(message_type):
            raise TypeError(
                f"A typed channel takes a TypedDict, a dataclass or a pydantic model, not {message_type!r}."
            )
        self._channel = channel
        self._message_type = message_type

    @property
    def message_type(self) -> type[Message]:
        return self._message_type

    def send(self, key: str, message: Message, ttl: float | None = None) -> None:
        """As :meth:`set`."""
        self.set(key, message, ttl)

    def receive(self, key: str, default: Message | None = None) -> Message | None:
        """The message under ``key``; it stays there."""
        found = self._channel.get(key, _ABSENT)
        return default if found is _ABSENT else self._built(key, found)

    def set(self, key: str, value: Message, ttl: float | None = None) -> None:
        self._channel.set(key, self._plain(key, value), ttl)

    def get(self, key: str, default: Any = None) -> Any:
        """The message under ``key``, or the list of messages if it was made by :meth:`append`."""
        found = self._channel.get(key, _ABSENT)
        if found is _ABSENT:
            return default
        if isinstance(found, list):
            return [self._built(f"{key}[{index}]", item) for index, item in enumerate(found)]
        return self._built(key, found)

    def append(self, key: str, value: Message, ttl: float | None = None) -> int:
        return self._channel.append(key, self._plain(key, value), ttl)

    def prepend(self, key: str, value: Message, ttl: float | None = None) -> int:
        return self._channel.prepend(key, self._plain(key, value), ttl)

    def delete(self, key: str) -> bool:
        return self._channel.delete(key)

    def exists(self, key: str) -> bool:
        return self._channel.exists(key)

    def keys(self) -> list[str]:
        return self._channel.keys()

    def clear(self) -> None:
        self._channel.clear()

    def atomic_add(self, key: str, amount: int | float = 1) -> int | float:
        """Adds to a plain number, which is no message."""
        return self._channel.atomic_add(key, amount)

    def lock(self, key: str, timeout: float = 10.0) -> AbstractContextManager[None]:
        return self._channel.lock(key, timeout)

    def _plain(self, key: str, message: Message) -> Any:
        try:
            return to_plain(message, self._message_type)
        except Misfit as error:
            raise TypeError(
                f"Channel key '{key}': the message is no {self._message_type.__name__} ({error}); nothing was stored."
            ) from error.__cause__

    def _built(self, key: str, plain: Any) -> Message:
        try:
            return cast(Message, from_plain(plain, self._message_type))
        except Misfit as error:
            raise TypeError(
                f"Channel key '{key}': what is there is no {self._message_type.__name__} ({error}). "
                f"Read it with get_channel(), or by the type with which it was written."
            ) from error.__cause__


_ABSENT = object()
