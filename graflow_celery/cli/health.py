"""``graflow-celery health``: whether the workers and monitors of this machine live. See `graflow_celery.health`."""

from __future__ import annotations

import click

from graflow_celery.cli import render
from graflow_celery.errors import ConfigError
from graflow_celery.health import look, setting


@click.command()
@click.option("--worker", metavar="NAME", help="This one alone: a worker's node name, or monitor@HOST.")
@click.option(
    "--max-age",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Seconds since its last sign of life; three of its beats by default.",
)
@click.option("--ready", is_flag=True, help="The server has to have answered its last beat, too.")
def health(worker: str | None, max_age: float | None, ready: bool) -> int:
    """Say whether the workers and monitors of this machine live, from the files that they write: exit status 0 or 1.

    It asks no server. A worker that cannot reach its server lives, and is not ready.
    """
    try:
        verdict = look(setting(), worker, max_age, ready=ready)
    except (OSError, ValueError) as error:
        raise ConfigError(f"health_file cannot be read: {error}") from None
    render.say(verdict.text)
    return 0 if verdict.healthy else 1
