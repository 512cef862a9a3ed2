"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from graflow_celery import compat

Command = TypeVar("Command", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
traceback = click.option("--traceback", is_flag=True, help="Show the whole traceback of what went wrong.")


def _install(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        compat.install()


graflow = click.option(
    "--graflow",
    is_flag=True,
    expose_value=False,
    callback=_install,
    help="The file was written for graflow: there, `import graflow` means this package.",
)


def workflow(function: Command) -> Command:
    """What says which workflow is meant and what it starts with."""
    decorators = (
        click.argument("target", metavar="FILE|MODULE[:NAME]"),
        click.option(
            "--param", "params", multiple=True, metavar="KEY=VALUE", help="A value for the channel; JSON or text."
        ),
        click.option("--start", metavar="NODE", help="The node to start with."),
        graflow,
    )
    for decorate in reversed(decorators):
        function = decorate(function)
    return function
