"""``graflow-celery demo``: the example job on a server and workers of its own; nothing of it stays behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from graflow_celery.cli import carrying, options, render
from graflow_celery.cli.cluster import own_cluster
from graflow_celery.cli.interruption import exit_code_of, terminable
from graflow_celery.cli.loading import load_workflow
from graflow_celery.errors import WorkflowFileError

WORKERS = 2
EXAMPLE = "stdlib_census.py"
TOP = 5
TOTALS = ("packages", "files", "lines", "functions", "classes")
COLUMNS = ("files", "lines", "functions")


@click.command()
@options.traceback
def demo(traceback: bool) -> int:
    """Run the example job: a census of Python's standard library, on an embedded server and two workers.

    The report goes to ./report, or to the directory that CENSUS_REPORT_DIR names.
    """
    render.show_warnings()
    try:
        with terminable():
            return _demo(traceback)
    except KeyboardInterrupt as interrupt:
        render.complain(["Everything was stopped."], kind="interrupted")
        return exit_code_of(interrupt)


def _demo(traceback: bool) -> int:
    request = carrying.Request(load_workflow(str(example())))
    with own_cluster(WORKERS) as settings:
        ending = carrying.run_on_workers(request, settings)
        code = carrying.tell(ending, traceback=traceback, with_result=False)
    if ending.error is None:
        _tell_census(ending.result)
    return code


def _tell_census(result: Mapping[str, Any]) -> None:
    """The totals, the largest packages, and where the report lies."""
    totals = result["totals"]
    counted = ", ".join(f"{totals[name]:,} {name}" for name in TOTALS if name in totals)
    render.pairs([("counted", counted)])
    render.say()
    rows = [[str(row["package"]), *(f"{row[name]:,}" for name in COLUMNS)] for row in result["top"][:TOP]]
    render.table(("package", *COLUMNS), rows, right=COLUMNS)
    render.say()
    render.say("The report:")
    render.pairs([(name, str(Path(result[name]).resolve())) for name in ("html", "json")])


def example() -> Path:
    """The example's file: in the package as it was built, or beside it in a checkout.

    Raises:
        WorkflowFileError: in neither place.
    """
    package = Path(__file__).resolve().parent.parent
    places = (package / "cli" / "examples" / EXAMPLE, package.parent / "examples" / EXAMPLE)
    for place in places:
        if place.is_file():
            return place
    raise WorkflowFileError(
        f"The example is not there: neither {places[0]} nor {places[1]}. Install graflow-celery again."
    )
