"""``graflow-celery graph``: draw a workflow."""

from __future__ import annotations

import click

from graflow_celery.cli import options, render
from graflow_celery.cli.loading import load_workflow
from graflow_celery.core.diagram import to_dot, to_mermaid, to_text


@click.command()
@click.argument("target", metavar="FILE|MODULE[:NAME]")
@click.option(
    "--format",
    "-f",
    "form",
    type=click.Choice(["text", "mermaid", "dot"]),
    default="text",
    show_default=True,
    help="Language.",
)
@options.graflow
def graph(target: str, form: str) -> int:
    """Draw a workflow as text, as a Mermaid flowchart or in Graphviz's language, on stdout."""
    workflow = load_workflow(target)
    workflow.plan()
    match form:
        case "mermaid":
            drawn = to_mermaid(workflow.graph)
        case "dot":
            drawn = to_dot(workflow.graph, workflow.name)
        case _:
            drawn = to_text(workflow.graph)
    render.say(drawn.rstrip("\n"))
    return 0
