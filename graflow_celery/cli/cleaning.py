"""``graflow-celery gc``: remove the blobs that no run needs any more."""

from __future__ import annotations

import time
from dataclasses import asdict

import click

from graflow_celery.cli import options, render
from graflow_celery.redis_backend.garbage import Cleaning, Stored
from graflow_celery.runs import client_runtime
from graflow_celery.terminal.wording import counted, duration, first_line, size

TOLD = 10
OLD = 3600


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would be removed, and remove nothing.")
@click.option(
    "--older-than",
    type=click.FloatRange(min=0),
    default=OLD,
    show_default=True,
    metavar="SECONDS",
    help="Leave alone what was uploaded or renewed in this time: a run may be about to refer to it.",
)
@options.as_json
def gc(dry_run: bool, older_than: float, as_json: bool) -> int:
    """Remove graphs, functions and large values that no run refers to.

    Runs that have ended count as long as the store has them, for a retry needs what they refer to. Nothing has to be
    removed by hand: what is not needed expires. This frees its memory earlier.

    If the graph of a run cannot be read, for want of the secret say, nothing is removed, and the exit status is 1.
    """
    render.show_warnings()
    began = time.monotonic()
    done = client_runtime().garbage.clean(older_than, dry_run)
    if as_json:
        render.say_json(_facts(done, dry_run))
    else:
        _tell(done, dry_run, time.monotonic() - began)
    return 1 if done.unreadable else 0


def _facts(done: Cleaning, dry_run: bool) -> dict[str, object]:
    facts = asdict(done)
    facts["removed"] = [asdict(blob) for blob in _largest(done)]
    return {**facts, "removed_bytes": done.removed_bytes, "dry_run": dry_run or bool(done.unreadable)}


def _largest(done: Cleaning) -> list[Stored]:
    return sorted(done.removed, key=lambda blob: (-blob.size, blob.name))


def _tell(done: Cleaning, dry_run: bool, took: float) -> None:
    for run, why in done.unreadable.items():
        render.complain([f"The graph of run {run} cannot be read: {first_line(why)}"], kind="warning")
    for run, why in done.incomplete.items():
        render.complain([f"Run {run} lacks a part of its graph: {first_line(why)}"], kind="warning")
    removed = f"{counted(len(done.removed), 'blob')}, {size(done.removed_bytes)}"
    render.pairs(
        [
            ("kept", f"{counted(done.kept, 'blob')}, {size(done.kept_bytes)}, for {counted(done.runs, 'run')}"),
            ("recent", f"{counted(done.young, 'blob')}, {size(done.young_bytes)}, no run's"),
            ("would go" if dry_run or done.unreadable else "removed", removed),
            ("took", duration(took)),
        ],
        indent=0,
    )
    if done.removed:
        render.say()
        rows = ([blob.name, size(blob.size), duration(blob.age)] for blob in _largest(done)[:TOLD])
        render.table(("blob", "size", "unused for"), rows, right=("size", "unused for"))
        if len(done.removed) > TOLD:
            render.say(f"... and {len(done.removed) - TOLD:,} more")
    if done.unreadable:
        render.complain(
            ["Nothing was removed: what those runs need cannot be told.", "Set GRAFLOW_CELERY_SECRET_KEY as theirs is."]
        )
