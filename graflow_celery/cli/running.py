"""``graflow-celery run`` and ``submit``: start a workflow."""

from __future__ import annotations

import click

from graflow_celery.celery_backend.submitting import RUN_ID
from graflow_celery.cli import carrying, options, render
from graflow_celery.cli.cluster import own_cluster
from graflow_celery.cli.interruption import exit_code_of, leaving_at_second_interrupt, terminable
from graflow_celery.cli.loading import load_workflow, parse_params
from graflow_celery.settings import load_settings


@click.command()
@options.workflow
@click.option(
    "--backend",
    type=click.Choice(["local", "celery", "embedded"]),
    default="local",
    show_default=True,
    help="Where tasks run: in threads here, on your workers, or on a server and workers started for this run.",
)
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes of the embedded backend.  [default: 2]")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Cancel the run after that long."
)
@click.option("--no-progress", is_flag=True, help="Show the summary alone.")
@click.option("--json", "as_json", is_flag=True, help="Print events and summary as JSON, one object a line.")
@options.traceback
def run(
    target: str,
    params: tuple[str, ...],
    start: str | None,
    backend: str,
    workers: int | None,
    timeout: float | None,
    no_progress: bool,
    as_json: bool,
    traceback: bool,
) -> int:
    """Run a workflow and show its progress and result.

    FILE is a Python file, MODULE one that can be imported; NAME is a workflow in it, or a function that returns one. A
    file's functions travel to the workers by themselves; a module has to be installed where the workers are.
    """
    if workers is not None and backend != "embedded":
        raise click.UsageError("--workers starts workers for --backend embedded; others run as many as you started.")
    render.show_warnings()
    request = carrying.Request(load_workflow(target), start, parse_params(params), timeout, as_json, no_progress)
    try:
        with terminable():
            if backend == "embedded":
                return _run_embedded(request, workers or 2, traceback)
            if backend == "celery":
                ending = carrying.run_on_workers(request)
            else:
                with leaving_at_second_interrupt():
                    ending = carrying.run_here(request)
            return carrying.tell(ending, as_json=as_json, traceback=traceback)
    except KeyboardInterrupt as interrupt:
        render.complain(["The workflow was stopped: nothing of it starts any more."], kind="interrupted")
        return exit_code_of(interrupt)


@click.command()
@options.workflow
@click.option("--run-id", metavar="ID", help="The run's id. Submitting an id again starts nothing and prints it.")
@click.option("--queue-anyway", is_flag=True, help="Submit even if no worker is there: the run waits for one.")
@options.traceback
def submit(
    target: str, params: tuple[str, ...], start: str | None, run_id: str | None, queue_anyway: bool, traceback: bool
) -> int:
    """Start a workflow on the workers and print the run's id, and nothing else, on stdout."""
    if run_id is not None and not RUN_ID.fullmatch(run_id):
        raise click.BadParameter(
            f"'{run_id}' has to be letters, digits and _ . : - (at most 128).", param_hint="--run-id"
        )
    render.show_warnings()
    workflow = load_workflow(target)
    started = workflow.submit(
        start, initial_channel=parse_params(params), run_id=run_id, require_workers=not queue_anyway
    )
    render.say(started.id)
    return 0


def _run_embedded(request: carrying.Request, workers: int, traceback: bool) -> int:
    queues = request.workflow.plan(request.start).queues(load_settings().queue)
    with own_cluster(workers, queues, quiet=request.as_json or request.quiet) as settings:
        ending = carrying.run_on_workers(request, settings)
        return carrying.tell(ending, as_json=request.as_json, traceback=traceback)
