"""What ``graflow-celery doctor`` looks at outside: the server and its clock, the broker, the result backend."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from typing import Any

import kombu
import redis
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from graflow_celery.celery_backend.app import create_app
from graflow_celery.cli.findings import TIMEOUT, Finding
from graflow_celery.errors import ConfigError, UnavailableError
from graflow_celery.redis_backend.client import Client, opened, reported, takes_writes
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.settings import Settings, celery_url, mask_url
from graflow_celery.terminal.wording import first_line, size

#: Seconds after which Celery's Redis broker delivers again what was not acknowledged, if nothing else is set.
VISIBILITY_TIMEOUT = 3600
#: Shorter ones have messages of common tasks delivered again and again.
SHORT = 60
#: Seconds by which a clock may be wrong before logs confuse.
OFF = 1.0


def server(client: Client, settings: Settings) -> Generator[Finding, None, bool]:
    url = mask_url(settings.redis_url)
    try:
        info: Mapping[str, Any] = client.info()
    except redis.RedisError as error:
        yield Finding(
            "server",
            "fail",
            f"nothing answers at {url} ({first_line(str(error)).rstrip('.')})",
            "Start Redis or Valkey there, or set GRAFLOW_CELERY_REDIS_URL.",
        )
        return False
    name = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info.get('redis_version', '?')}"
    yield Finding("server", "ok", f"{name} at {url}, {size(int(info.get('used_memory', 0)))} used")
    yield _eviction(str(info.get("maxmemory_policy", "noeviction")), int(info.get("maxmemory", 0)))
    yield _persistence(client, info)
    yield from _writes(client, settings)
    yield _clock(client)
    return True


def _writes(client: Client, settings: Settings) -> Iterator[Finding]:
    try:
        with reported(settings.redis_url):
            takes_writes(client, Keys(settings.key_prefix).probe)
    except UnavailableError as error:
        yield Finding("writes", "fail", f"{error}", "Nothing runs until it takes writes again; nothing is lost by it.")


def _eviction(policy: str, limit: int) -> Finding:
    remedy = "Set maxmemory-policy noeviction on the server."
    if policy == "noeviction":
        return Finding("eviction", "ok", "noeviction" + (f", maxmemory {size(limit)}" if limit else ""))
    if policy.startswith("volatile-"):
        return Finding(
            "eviction", "warn", f"{policy}: a full server drops keys of running runs, which have a TTL", remedy
        )
    return Finding("eviction", "fail", f"{policy}: a full server drops any key, running runs and queues too", remedy)


def _persistence(client: Client, info: Mapping[str, Any]) -> Finding:
    try:
        snapshots = str(client.config_get("save").get("save", ""))
    except redis.ResponseError:  # a managed server may forbid CONFIG
        snapshots = "unknown"
    kinds = [*(["append-only file"] if info.get("aof_enabled") else []), *(["snapshots"] if snapshots else [])]
    if info.get("aof_enabled") or snapshots == "unknown":
        return Finding("persistence", "ok", " and ".join(kinds))
    remedy = "Set appendonly yes on the server, so that runs survive its restart."
    if kinds:
        return Finding("persistence", "warn", "snapshots alone: a crash loses what came after the last one", remedy)
    return Finding("persistence", "warn", "none: a restart of the server loses every run", remedy)


def broker(settings: Settings) -> Finding:
    url = mask_url(settings.broker)
    remedy = "Start it, or set GRAFLOW_CELERY_BROKER_URL."
    try:
        connection = kombu.Connection(
            settings.broker, connect_timeout=TIMEOUT, transport_options=settings.broker_options
        )
    except (KeyError, ImportError, ValueError) as error:
        return Finding("broker", "fail", f"{url} cannot be used: {error.args[0]}", "Correct GRAFLOW_CELERY_BROKER_URL.")
    try:
        connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=TIMEOUT)
    except (OperationalError, OSError) as error:
        return Finding("broker", "fail", f"nothing answers at {url} ({first_line(str(error)).rstrip('.')})", remedy)
    except ImportError as error:
        return Finding("broker", "fail", f"{url} cannot be used: {error}", "Install what it needs.")
    finally:
        connection.release()
    return Finding("broker", "ok", f"{connection.transport.driver_type} at {url}")


def result_backend(settings: Settings) -> Finding:
    url = mask_url(settings.backend)
    remedy = "Set GRAFLOW_CELERY_RESULT_BACKEND to one that Celery can use, or leave it empty to use the redis_url."
    try:
        create_app(settings)
    except ConfigError as error:
        return Finding("result backend", "fail", first_line(str(error)), remedy)
    if settings.backend == celery_url(settings.redis_url):
        return Finding("result backend", "ok", "the same server; runs store nothing there")
    if settings.result_backend.startswith(("redis://", "rediss://", "unix://")):
        once = Retry(NoBackoff(), 0)
        probe = opened(settings.result_backend, once, timeout=TIMEOUT, connect_timeout=TIMEOUT)
        try:
            probe.ping()
        except redis.RedisError as error:
            text = f"nothing answers at {url} ({first_line(str(error)).rstrip('.')})"
            return Finding("result backend", "warn", f"{text}; runs do not need it", remedy)
        finally:
            probe.close()
    return Finding("result backend", "ok", f"{url}; runs store nothing there")


def redelivery(settings: Settings) -> Iterator[Finding]:
    """When a broker that is Redis delivers again what was not acknowledged. The engine does not wait for that."""
    if not settings.broker.startswith(("redis", "rediss", "sentinel")):
        return
    try:
        given = create_app(settings).conf.broker_transport_options or {}
    except ConfigError:
        return
    seconds = float(given.get("visibility_timeout", VISIBILITY_TIMEOUT))
    text = f"visibility timeout {seconds:,.0f} s" + ("" if "visibility_timeout" in given else ", Celery's default")
    if seconds < SHORT:
        yield Finding(
            "redelivery",
            "warn",
            f"{text}: messages of longer tasks are delivered again and again, and refused each time",
            "Leave it out: the engine replaces lost tasks by itself, and does not wait for it.",
        )
    else:
        yield Finding(
            "redelivery", "ok", f"{text}; nothing waits for it, and a task that runs longer is not run a second time"
        )


def _clock(client: Client) -> Finding:
    """How far this machine's clock is from the server's, which stamps everything."""
    before = time.time()
    seconds, micros = client.time()
    off = (before + time.time()) / 2 - (seconds + micros / 1_000_000)
    if abs(off) <= OFF:
        return Finding("clock", "ok", f"the server's clock stamps everything; this machine's is {abs(off):.2f} s off")
    ahead = "ahead of" if off > 0 else "behind"
    return Finding(
        "clock",
        "warn",
        f"this machine's clock is {abs(off):.1f} s {ahead} the server's, which stamps everything",
        "The engine does not mind, but logs of two machines will confuse: set the clock by NTP.",
    )
