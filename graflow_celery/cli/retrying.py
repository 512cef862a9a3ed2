"""``graflow-celery retry``: let a run go on that has ended."""

from __future__ import annotations

from dataclasses import asdict

import click

from graflow_celery.celery_backend.retrying import RetryReport
from graflow_celery.cli import options, render
from graflow_celery.runs import Run
from graflow_celery.terminal.wording import counted

NODES_TOLD = 12


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option(
    "--from",
    "from_nodes",
    multiple=True,
    metavar="NODE",
    help="Run this one again too, and all after it, although it succeeded. May be given several times.",
)
@click.option("--dry-run", is_flag=True, help="Show what would run again and what is kept, and change nothing.")
@options.as_json
def retry(run_id: str, from_nodes: tuple[str, ...], dry_run: bool, as_json: bool) -> int:
    """Let a run that ended go on: what failed or was cut off runs again, and all that follows it.

    The run keeps its id and its log. Results of tasks that succeeded are kept, and those tasks don't run again. NODE is
    the id of a task or group, or the key of a pass or member as `show --json` and the events have it: 'score[17]'.
    """
    render.show_warnings()
    report = Run.get(run_id).retry_failed(from_nodes, dry_run=dry_run)
    if as_json:
        render.say_json({"run": run_id, **{name: value for name, value in asdict(report).items() if name != "run_id"}})
        return 0
    _tell(report)
    return 0


def _tell(report: RetryReport) -> None:
    render.say(f"{'would retry' if report.dry_run else 'retried'} {report.run_id}")
    render.pairs(
        [
            (
                "again",
                f"{counted(len(report.again), 'task')}: {_named(report.again)}" if report.again else "barriers only",
            ),
            ("kept", f"{counted(len(report.kept), 'task')}: {_named(report.kept)}" if report.kept else "nothing"),
        ]
    )
    if not report.dry_run:
        render.say(f"Follow it: graflow-celery watch {report.run_id}")


def _named(nodes: tuple[str, ...]) -> str:
    more = len(nodes) - NODES_TOLD
    return ", ".join(nodes[:NODES_TOLD]) + (f", ... and {more:,} more" if more > 0 else "")
