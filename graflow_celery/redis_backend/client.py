"""Connections to Redis or Valkey, made in one place: timeouts, retries with backoff, errors with a next step."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.resources import files
from itertools import compress
from typing import Any, TypeVar, cast

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.sentinel
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.commands.core import Script
from redis.exceptions import AuthenticationError, AuthorizationError, NoScriptError, OutOfMemoryError, ReadOnlyError
from redis.retry import Retry

from graflow_celery.errors import StoreRefusedError, StoreUnavailableError
from graflow_celery.settings import mask_url, sentinel_of

logger = logging.getLogger(__name__)

Client = Any
Result = TypeVar("Result")
CONNECT_TIMEOUT = 5.0
#: Seconds for which a server may be away before a call fails, unless :func:`patience` says otherwise.
PATIENCE = 5.0
#: The longest pause between two tries, in seconds.
LONGEST_PAUSE = 2.0
SCRIPTS = (
    *("release", "referring", "sweep"),
    *("advance", "claim", "hurry", "register"),
    *("beat", "lead", "declare", "bury", "report", "glance"),
    *("change", "look", "lock"),
    *("tally",),
)
#: Those that start with `lua/live.lua`, because they read a channel.
CHANNEL_SCRIPTS = ("advance", "change", "look")
#: How the errors begin with which a server refuses what it may take later.
PASSING = ("MISCONF", "NOREPLICAS", "BUSY ", "CLUSTERDOWN", "TRYAGAIN", "UNBLOCKED")

#: What stands between a pipeline's command and the error that the server answered it with.
_IN_PIPELINE = " of pipeline caused error: "

_patience: ContextVar[float | None] = ContextVar("graflow_patience", default=None)
_AWAY = (redis.ConnectionError, redis.TimeoutError, OSError)


class Pauses(ExponentialBackoff):
    """Growing pauses, up to LONGEST_PAUSE, however often it failed."""

    def __init__(self) -> None:
        super().__init__(cap=LONGEST_PAUSE, base=0.05)

    def compute(self, failures: int) -> float:
        return float(super().compute(min(failures, 16)))


def connect(url: str, *, block: float | None = None) -> Client:
    """A client for ``url``; it connects when it is first used and is safe to use from many threads.

    While the server is away, a call tries again with growing pauses, for as long as :func:`patience` says. What the
    server refuses, because it is full say, is tried again too where that is set. In the end a call raises:

    - StoreUnavailableError: no server answered in time.
    - StoreRefusedError: it answers, and refuses: it is full, read-only, or the user may not do that.

    Args:
        url: ``redis://``, ``rediss://``, ``unix://`` or ``sentinel://``; see :class:`graflow_celery.settings.Settings`.
        block: seconds for which calls may block (XREAD BLOCK); others time out after 30 s.
    """
    return opened(url, Patient(url), timeout=30.0 if block is None else block + 30.0)


def opened(url: str, retry: Retry, timeout: float, connect_timeout: float = CONNECT_TIMEOUT) -> Client:
    """A client that retries as ``retry`` says."""
    options: dict[str, Any] = {
        "socket_connect_timeout": connect_timeout,
        "socket_timeout": timeout,
        # None: a server that cannot save refuses even PING, and a call over a connection that broke is tried again.
        "health_check_interval": 0,
        "retry": retry,
    }
    if not url.startswith("sentinel://"):
        return redis.Redis.from_url(url, **options)
    at = sentinel_of(url)
    asked: dict[str, Any] = {
        "socket_connect_timeout": connect_timeout,
        "socket_timeout": min(timeout, CONNECT_TIMEOUT),
        "retry": Retry(NoBackoff(), 0),
    }
    watching = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]  # redis-py has no types there
        list(at.nodes), sentinel_kwargs={**asked, **at.credentials}
    )
    return watching.master_for(  # type: ignore[no-untyped-call]  # redis-py has no types there
        at.master_name, redis.Redis, db=at.database, username=at.username, password=at.password, **options
    )


def opened_async(url: str, timeout: float, **options: Any) -> Any:
    """A client for an event loop. It tries once."""
    once: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "socket_timeout": timeout,
        "retry": redis.asyncio.retry.Retry(NoBackoff(), 0),
    }
    if not url.startswith("sentinel://"):
        return redis.asyncio.Redis.from_url(url, **once, **options)
    at = sentinel_of(url)
    asked = {**once, "socket_timeout": CONNECT_TIMEOUT, **at.credentials}
    watching: Any = redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]  # redis-py has no types there
        list(at.nodes), sentinel_kwargs=asked
    )
    login: dict[str, Any] = {"db": at.database, "username": at.username, "password": at.password}
    return watching.master_for(at.master_name, redis.asyncio.Redis, **login, **once, **options)


@contextmanager
def patience(seconds: float | None) -> Iterator[None]:
    """Has the calls of the block, in this thread or task, wait so long for a server that is away or refuses.

    With None as without it: PATIENCE seconds for one that is away, and not at all for one that refuses.
    """
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


class Patient(Retry):
    """Tries again until the time is up that :func:`patience` gives, counted from a call's first failure."""

    def __init__(self, url: str) -> None:
        super().__init__(Pauses(), -1, (*_AWAY, redis.ResponseError))
        self._url = url

    __hash__ = Retry.__hash__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Patient) and other._url == self._url

    def get_retries(self) -> int:
        """As many as there is time for. The client counts a failure beyond them by the server's port, which the
        connection of a Unix socket does not have (redis-py 8.1), so there must be none.
        """
        return sys.maxsize

    def call_with_retry(self, do: Callable[[], Result], *args: Any, **kwargs: Any) -> Result:
        given = _patience.get()
        deadline: float | None = None

        def tried() -> Result:
            nonlocal deadline
            try:
                return do()
            except NoScriptError as error:  # the caller sends the script
                raise _Passed(error) from None
            except (*_AWAY, redis.ResponseError) as error:
                first = deadline is None
                deadline = deadline or time.monotonic() + (PATIENCE if given is None else given)
                lasting = not passes(error) or (given is None and isinstance(error, redis.ResponseError))
                if lasting or time.monotonic() >= deadline:
                    raise _Passed(failure(self._url, error)) from None
                if not first:
                    outages.began(self._url, error)
                raise

        try:
            result = super().call_with_retry(tried, *args, **kwargs)
        except _Passed as passed:
            raise passed.error from None
        if (
            deadline is not None or result is not None
        ):  # connecting anew where a broken connection is not noticed is None
            outages.ended(self._url)
        return result


class _Passed(Exception):
    """Carries an error past the retrying."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error


class Outages:
    """Logs once that a server does not serve, and once that it does again."""

    def __init__(self) -> None:
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def began(self, url: str, error: Exception) -> None:
        with self._lock:
            if url in self._known:
                return
            self._known.add(url)
        logger.warning("The server at %s does not serve (%s). Trying again ...", mask_url(url), short(error))

    def ended(self, url: str) -> None:
        if url not in self._known:
            return
        with self._lock:
            if url not in self._known:
                return
            self._known.discard(url)
        logger.warning("The server at %s answers again.", mask_url(url))


outages = Outages()


def passes(error: Exception) -> bool:
    """Whether it may be otherwise in a while: the server is away, full, loading, read-only for now."""
    if isinstance(error, (AuthenticationError, AuthorizationError)):
        return False
    if isinstance(error, redis.ResponseError):
        return isinstance(error, (OutOfMemoryError, ReadOnlyError)) or coded(error).startswith(PASSING)
    return True


def failure(url: str, error: Exception) -> StoreUnavailableError | StoreRefusedError:
    """What a client's error means to a caller, with the password masked."""
    if isinstance(error, OutOfMemoryError):
        return StoreRefusedError(mask_url(url), coded(error), _limit(url))
    if isinstance(error, (redis.ResponseError, AuthenticationError, AuthorizationError, redis.BusyLoadingError)):
        return StoreRefusedError(mask_url(url), coded(error))
    return StoreUnavailableError(mask_url(url), short(error))


def coded(error: Exception) -> str:
    """A server's error as it sent it: with its code in front, which the client takes away."""
    code = getattr(error, "status_code", None) or ""
    text = short(error)
    return text if not code or code == "ERR" or text.startswith(code) else f"{code} {text}"


def _limit(url: str) -> str:
    """A full server's own limit, as far as it says."""
    client = opened(url, Retry(NoBackoff(), 0), timeout=2.0)
    with suppress(redis.RedisError, OSError):
        return str(client.info("memory").get("maxmemory_human", ""))
    return ""


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

    def queue(self, pipe: Any, name: str, keys: Sequence[str], args: Sequence[Any]) -> None:
        """Queues a script in a pipeline that :meth:`together` sends."""
        pipe.evalsha(self[name].sha, len(keys), *keys, *args)

    def together(self, client: Client, queued: Callable[[Any], None]) -> list[Any]:
        """Sends what ``queued`` puts into a pipeline, in one round trip, and returns the replies.

        If the server does not know a script, it is told all of them, and is sent everything once more. What had run
        already keeps its first reply.
        """
        replies = _sent(client, queued)
        if not any(isinstance(reply, NoScriptError) for reply in replies):
            return replies
        with client.pipeline(transaction=False) as pipe:
            for name in SCRIPTS:
                pipe.script_load(self[name].script)
            pipe.execute()
        again = _sent(client, queued)
        return [new if isinstance(old, NoScriptError) else old for old, new in zip(replies, again, strict=True)]


class _ScriptPipeline(redis.client.Pipeline):
    """Has scripts that the server does not know among its replies, instead of raising an error for the first."""

    def raise_first_error(self, commands: Any, response: Any) -> None:
        known = [not isinstance(reply, NoScriptError) for reply in response]
        super().raise_first_error(  # type: ignore[no-untyped-call]  # redis-py has no types there
            list(compress(commands, known)), list(compress(response, known))
        )


def _sent(client: Client, queued: Callable[[Any], None]) -> list[Any]:
    with _ScriptPipeline(client.connection_pool, client.response_callbacks, False, None) as pipe:
        queued(pipe)
        return list(pipe.execute())


@contextmanager
def reported(url: str) -> Iterator[None]:
    """Turns errors of clients that were not made here, Celery's say, into ours, with the password masked."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, redis.ResponseError) as error:
        raise failure(url, error) from None


def check(url: str) -> None:
    """Raises StoreUnavailableError or StoreRefusedError, without retrying for long, unless a server answers there."""
    probe = opened(url, Retry(ExponentialBackoff(), 1), timeout=2.0, connect_timeout=2.0)
    with reported(url):
        try:
            probe.ping()
        finally:
            probe.close()


def takes_writes(client: Client, key: str) -> None:
    """Raises StoreRefusedError at once if the server refuses to be written to. ``key`` must not exist; none is made."""
    with patience(None):
        client.lpushx(key, "")


def short(error: Exception) -> str:
    """The first line of an error, for the middle of a sentence; without the command of the pipeline that met it."""
    text = str(error)
    text = text.rpartition(_IN_PIPELINE)[2] or text
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__
