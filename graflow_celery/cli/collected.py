"""``graflow-celery logs``: what the code of a run's nodes logged, where workers collect it."""

from __future__ import annotations

from datetime import datetime

import click
from rich.text import Text

from graflow_celery.cli import render
from graflow_celery.cli.interruption import exit_code_of, terminable
from graflow_celery.core.activation import item_of, node_of
from graflow_celery.redis_backend.log_stream import Line
from graflow_celery.runs import Run

_STYLES = {"WARNING": "warn", "ERROR": "error", "CRITICAL": "error"}


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--node", metavar="NODE", help="Only this one; of a mapped task or a loop all members and passes.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run has ended.")
@click.option("--json", "as_json", is_flag=True, help="Print each line as a JSON object.")
def logs(run_id: str, node: str | None, follow: bool, as_json: bool) -> int:
    """Show what the code of a run's nodes logged: where the workers' setting collect_logs is on."""
    render.show_warnings()
    told = False
    try:
        with terminable():
            for line in Run.get(run_id).logs(follow):
                told = True
                if node is None or node in _names(str(line.get("node", ""))) or "dropped" in line:
                    render.say_json({"run": run_id, **line}) if as_json else _tell(line)
    except KeyboardInterrupt as interrupt:
        return exit_code_of(interrupt)
    if not told:
        render.complain(
            [f"Nothing was collected of run {run_id}.", "Set GRAFLOW_CELERY_COLLECT_LOGS=true for the workers."],
            kind="warning",
        )
    return 0


def _names(key: str) -> tuple[str, ...]:
    node = node_of(key)
    item = item_of(node)
    return (key, node) if item is None else (key, node, item[0])


def _tell(line: Line) -> None:
    where = f"{line['node']} #{line['attempt']}" if "node" in line else ""
    when = f"{datetime.fromtimestamp(line['at']).astimezone():%H:%M:%S.%f}"[:-3] if "at" in line else ""
    level = str(line.get("level", ""))
    extra = "".join(f" {name}={value}" for name, value in line.get("extra", {}).items())
    head = Text(f"{when} {level:<7} {where}  ".lstrip(), style="dim")
    render.say(Text.assemble(head, (str(line.get("message", "")), render.style_of(_STYLES.get(level, ""))), extra))
    if "error" in line:
        render.say(Text(line["error"], style="dim"))
