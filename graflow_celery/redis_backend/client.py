"""Connections to Redis or Valkey, made in one place: timeouts, retries with backoff, errors with a next step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any, cast

import redis
from redis.backoff import ExponentialBackoff
from redis.commands.core import Script
from redis.retry import Retry

from graflow_celery.errors import StoreUnavailableError
from graflow_celery.settings import mask_url

Client = Any
CONNECT_TIMEOUT = 5.0
RETRIES = 6
SCRIPTS = (
    *("commit", "begin", "claim", "hurry"),
    *("beat", "lead", "declare", "bury", "report"),
    *("change", "look", "lock"),
)
#: Those that start with `lua/live.lua`, because they read a channel.
CHANNEL_SCRIPTS = ("begin", "change", "look")


def connect(url: str, *, block: float | None = None, retries: int = RETRIES) -> Client:
    """A client for ``url``; it connects when it is first used and is safe to use from many threads.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        block: seconds for which calls may block (XREAD BLOCK); others time out after 30 s.
        retries: how often a command is tried again while the server does not answer.
    """
    return redis.Redis.from_url(
        url,
        socket_connect_timeout=CONNECT_TIMEOUT,
        socket_timeout=30.0 if block is None else block + 30.0,
        health_check_interval=30,
        retry=Retry(ExponentialBackoff(cap=2.0, base=0.05), retries),
        retry_on_error=[redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError],
    )


class Scripts:
    """The Lua scripts, by name. Registered once a client; sent by their hash."""

    def __init__(self, client: Client) -> None:
        home = files("graflow_celery.redis_backend") / "lua"
        live = (home / "live.lua").read_text()
        self._scripts = {
            name: client.register_script((live if name in CHANNEL_SCRIPTS else "") + (home / f"{name}.lua").read_text())
            for name in SCRIPTS
        }

    def __getitem__(self, name: str) -> Script:
        return cast(Script, self._scripts[name])


@contextmanager
def reported(url: str) -> Iterator[None]:
    """Turns the client's connection errors into :exc:`StoreUnavailableError`, with the password masked."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise StoreUnavailableError(mask_url(url), short(error)) from None


def check(url: str) -> None:
    """Raises StoreUnavailableError, without retrying for long, unless a server answers at ``url``."""
    probe = redis.Redis.from_url(
        url, socket_connect_timeout=2.0, socket_timeout=2.0, retry=Retry(ExponentialBackoff(), 1)
    )
    with reported(url):
        try:
            probe.ping()
        finally:
            probe.close()


def short(error: Exception) -> str:
    """The first line of an error, for the middle of a sentence."""
    return str(error).splitlines()[0].rstrip(".") if str(error) else type(error).__name__
