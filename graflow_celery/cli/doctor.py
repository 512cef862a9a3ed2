"""``graflow-celery doctor``: looks at everything that a run needs and says what to do about what is missing."""

from __future__ import annotations

import platform
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Literal

import click
import kombu
import redis
from celery.backends.redis import RedisBackend
from celery.exceptions import ImproperlyConfigured
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry
from rich.text import Text

from graflow_celery.celery_backend.app import create_app
from graflow_celery.cli import options, render
from graflow_celery.cli.wording import counted, first_line, size
from graflow_celery.errors import ConfigError
from graflow_celery.redis_backend.client import Client, Scripts, opened
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.liveness import Liveness, WorkerLease
from graflow_celery.settings import Settings, celery_url, load_settings, mask_url

TIMEOUT = 2.0
OUTSIDE_MISSING = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``remedy`` says what to do unless it is ok."""

    about: str
    state: Literal["ok", "warn", "fail"]
    text: str
    remedy: str = ""


@click.command()
@options.as_json
def doctor(as_json: bool) -> int:
    """Check settings, server, broker, result backend and workers. Exit status 0 if nothing failed, else 3."""
    findings: list[Finding] = []
    workers: list[WorkerLease] = []
    settings: Settings | None = None
    for finding in _examine(workers):
        if isinstance(finding, Settings):
            settings = finding
            continue
        findings.append(finding)
        if not as_json:
            _tell(finding)
    shown = settings.masked() if settings is not None else {}
    if as_json:
        render.say_json(
            {
                "findings": [asdict(finding) for finding in findings],
                "workers": [asdict(worker) for worker in workers],
                "settings": shown,
            }
        )
    else:
        _tell_rest(workers, shown)
    return OUTSIDE_MISSING if any(finding.state == "fail" for finding in findings) else 0


def _examine(workers: list[WorkerLease]) -> Iterator[Finding | Settings]:
    yield _versions()
    try:
        settings = load_settings()
    except ConfigError as error:
        yield Finding("settings", "fail", str(error), "Correct it in the environment or the settings file.")
        return
    yield settings
    yield from _secret(settings)
    client = opened(settings.redis_url, Retry(NoBackoff(), 0), timeout=TIMEOUT, connect_timeout=TIMEOUT)
    try:
        reached = yield from _server(client, settings)
        yield _broker(settings)
        yield _result_backend(settings)
        if reached:
            yield from _workers(client, settings, workers)
    finally:
        client.close()


def _versions() -> Finding:
    names = ("graflow-celery", "celery", "kombu", "redis")
    found = ", ".join(f"{name} {version(name)}" for name in names)
    return Finding("versions", "ok", f"{found}, Python {platform.python_version()}")


def _secret(settings: Settings) -> Iterator[Finding]:
    if settings.secret_key is not None:
        yield Finding("secret_key", "ok", "set: content is signed, and unsigned content is refused")
    else:
        yield Finding(
            "secret_key",
            "warn",
            "not set: workers unpickle whatever is in the store",
            "Set GRAFLOW_CELERY_SECRET_KEY to the same long random text for clients and workers.",
        )


def _server(client: Client, settings: Settings) -> Generator[Finding, None, bool]:
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
    return True


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


def _broker(settings: Settings) -> Finding:
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


def _result_backend(settings: Settings) -> Finding:
    url = mask_url(settings.backend)
    remedy = "Set GRAFLOW_CELERY_RESULT_BACKEND to a redis:// URL, or leave it empty to use the redis_url."
    try:
        backend = create_app(settings).backend
    except (ConfigError, ImproperlyConfigured, ImportError) as error:
        return Finding("result backend", "fail", first_line(str(error)), remedy)
    if not isinstance(backend, RedisBackend):
        return Finding("result backend", "fail", f"{url} cannot count chords", remedy)
    if settings.backend == celery_url(settings.redis_url):
        return Finding("result backend", "ok", "the same server; it counts chords")
    if settings.result_backend.startswith(("redis://", "rediss://", "unix://")):
        once = Retry(NoBackoff(), 0)
        probe = opened(settings.result_backend, once, timeout=TIMEOUT, connect_timeout=TIMEOUT)
        try:
            probe.ping()
        except redis.RedisError as error:
            text = f"nothing answers at {url} ({first_line(str(error)).rstrip('.')})"
            return Finding("result backend", "fail", text, remedy)
        finally:
            probe.close()
    return Finding("result backend", "ok", f"{url}; it counts chords")


def _workers(client: Client, settings: Settings, found: list[WorkerLease]) -> Iterator[Finding]:
    liveness = Liveness(client, Scripts(client), Keys(settings.key_prefix), settings.heartbeat_timeout)
    found += liveness.workers()
    start = f"Start one: celery -A graflow_celery worker -Q {settings.queue}"
    if not found:
        yield Finding("workers", "fail", "none is alive", start)
    else:
        slots = sum(worker.concurrency for worker in found)
        yield Finding("workers", "ok", f"{counted(len(found), 'worker')}, {counted(slots, 'task')} at a time")
        if liveness.unserved([settings.queue]):
            yield Finding("default queue", "fail", f"no live worker consumes '{settings.queue}'", start)
        else:
            yield Finding("default queue", "ok", f"'{settings.queue}' is consumed")
        other = sorted({worker.version for worker in found} - {version("celery")})
        if other:
            text = f"workers run Celery {', '.join(other)}; here it is {version('celery')}"
            yield Finding("versions", "warn", text, "Install the same version everywhere.")
    leader = liveness.leader()
    if leader is not None:
        yield Finding("monitor", "ok", f"{leader} leads")
    else:
        yield Finding(
            "monitor",
            "warn",
            "none leads: what gets lost is not sent again",
            "Start a worker or: graflow-celery monitor",
        )


def _tell(finding: Finding) -> None:
    render.say(
        Text.assemble((f"{finding.state:<4}", render.style_of(finding.state)), f"  {finding.about:<14}  {finding.text}")
    )
    if finding.remedy:
        render.say(Text(f"{'':22}{finding.remedy}", style="dim"))


def _tell_rest(workers: list[WorkerLease], settings: Mapping[str, str]) -> None:
    if workers:
        render.say()
        rows = (
            [item.name, str(item.pid), item.pool, str(item.concurrency), ", ".join(item.queues)] for item in workers
        )
        render.table(("worker", "pid", "pool", "slots", "queues"), rows, right=("pid", "slots"))
    if settings:
        render.say()
        render.say(Text("settings", style="dim"))
        render.pairs(settings.items())
