"""``graflow-celery logs``: what the code of a run's nodes logged, where workers collect it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import click
from rich.text import Text

from graflow_celery.cli import render
from graflow_celery.cli.interruption import exit_code_of, terminable
from graflow_celery.core.activation import item_of, node_of
from graflow_celery.core.state import RunStatus
from graflow_celery.redis_backend.client import connect
from graflow_celery.redis_backend.log_stream import Line, LogReader
from graflow_celery.runs import client_runtime

#: Seconds that a look waits for news.
SLICE = 1.0
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
            for line in _lines(run_id) if follow else sorted(_lines(run_id, to_end=False), key=_at):
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


def _at(line: Line) -> float:
    """When a line was written, by its worker's clock: processes send theirs a few times a second, each by itself."""
    return float(line.get("at", 0.0))


def _lines(run_id: str, *, to_end: bool = True) -> Iterator[Line]:
    """The run's lines as they come: to its end, or as far as they are there. Raises RunNotFoundError."""
    runtime = client_runtime()
    key = runtime.keys.run(run_id).logs
    over = _is_over(run_id)
    reader = LogReader(connect(runtime.settings.redis_url, block=SLICE), key)
    while True:
        lines = reader.read(SLICE if to_end and not over else None)
        yield from lines
        if not lines:
            if over or not to_end:
                return
            # Lines come a little later than the end: one more look after it.
            over = _is_over(run_id)
            yield from reader.read(SLICE) if over else ()


def _is_over(run_id: str) -> bool:
    return RunStatus(client_runtime().store.details(run_id)["status"]).is_terminal


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
