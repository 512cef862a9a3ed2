"""``graflow-celery doctor``: looks at everything that a run needs and says what to do about what is missing."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from importlib.metadata import version

import click
from redis.backoff import NoBackoff
from redis.retry import Retry
from rich.text import Text

from graflow_celery.cli import options, render
from graflow_celery.cli.findings import TIMEOUT, Finding
from graflow_celery.cli.outside import broker, redelivery, result_backend, server
from graflow_celery.cli.workforce import runs, workforce
from graflow_celery.errors import ConfigError
from graflow_celery.redis_backend.client import opened
from graflow_celery.redis_backend.liveness import WorkerLease
from graflow_celery.settings import Settings, load_settings
from graflow_celery.terminal.wording import counted, duration

OUTSIDE_MISSING = 3


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
        reached = yield from server(client, settings)
        sends, keeps = broker(settings), result_backend(settings)
        yield from (sends, *redelivery(settings), keeps)
        if reached:
            yield from workforce(client, settings, workers)
        if reached and sends.state == "ok" and keeps.state != "fail":
            yield runs(settings)
    finally:
        client.close()


def _versions() -> Finding:
    names = ("graflow-celery", "celery", "kombu", "redis")
    found = ", ".join(f"{name} {version(name)}" for name in names)
    return Finding("versions", "ok", f"{found}, Python {platform.python_version()}")


def _secret(settings: Settings) -> Iterator[Finding]:
    if settings.secret_key is not None:
        more = len(settings.secret_keys_accepted)
        accepted = f"; {counted(more, 'further secret')} accepted beside it" if more else ""
        yield Finding("secret_key", "ok", f"set: content is signed, and unsigned content is refused{accepted}")
    else:
        yield Finding(
            "secret_key",
            "warn",
            "not set: whoever can write to the store can make workers run code",
            "Set GRAFLOW_CELERY_SECRET_KEY to the same long random text for clients and workers.",
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
        columns = ("worker", "pid", "pool", "slots", "last beat", "runs", "received", "queues")
        render.table(columns, _rows(workers), right=("pid", "slots", "last beat", "runs", "received"))
    if settings:
        render.say()
        render.say(Text("settings", style="dim"))
        render.pairs(settings.items())


def _rows(workers: list[WorkerLease]) -> Iterator[list[str]]:
    for worker in workers:
        running = sum(item.running for item in worker.held)
        yield [
            worker.name,
            str(worker.pid),
            worker.pool,
            str(worker.concurrency),
            f"{duration(worker.age)} ago",
            str(running),
            str(len(worker.held) - running),
            ", ".join(worker.queues),
        ]
