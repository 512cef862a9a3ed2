"""``graflow-celery``: finds the command, runs it, and turns whatever went wrong into lines and an exit code.

This module is what ``graflow-celery --help`` costs. It imports click alone; a command's module is loaded when the
command is called.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any, cast

import click

#: Command -> its module in this package, and its line in the list. The command's name there is its function's.
COMMANDS = {
    "demo": ("demo", "Run the example job on a server and two workers of its own."),
    "run": ("running", "Run a workflow and show its progress and result."),
    "submit": ("running", "Start a workflow on the workers and print the run's id."),
    "runs": ("inspecting", "List the runs started last."),
    "show": ("inspecting", "Show how a run stands: its nodes, errors and times."),
    "watch": ("inspecting", "Follow a run until it ends."),
    "explain": ("explaining", "Say what a run waits for, and what befell it."),
    "retry": ("retrying", "Let a run that ended go on: what failed, and all after it, again."),
    "gc": ("cleaning", "Remove stored content that no run needs any more."),
    "cancel": ("inspecting", "End a run: nothing of it starts any more."),
    "feedback": ("feedback", "Show what tasks ask of people, and answer it."),
    "logs": ("collected", "Show what the code of a run's nodes logged."),
    "graph": ("drawing", "Draw a workflow as text, Mermaid or Graphviz."),
    "worker": ("serving", "Start a Celery worker that runs tasks."),
    "monitor": ("serving", "Start a monitor: it sends again what got lost."),
    "flower": ("serving", "Start Flower, Celery's web page."),
    "doctor": ("doctor", "Check settings, server, broker and workers."),
    "health": ("health", "Say whether the workers of this machine live: a probe."),
}
INTERRUPTED = 130


class LazyCommands(click.Group):
    """A group that knows its commands by name and loads each when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"graflow_celery.cli.{COMMANDS[cmd_name][0]}")
        return cast(click.Command, getattr(module, cmd_name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            difflib = importlib.import_module("difflib")  # costs 10 ms, and only who mistypes needs it
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise click.UsageError(f"No command '{args[0]}'.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        metadata = importlib.import_module("importlib.metadata")
        click.echo(f"graflow-celery {metadata.version('graflow-celery')}")
        ctx.exit()


@click.group(cls=LazyCommands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def shell() -> None:
    """Pipelines of plain functions on the Celery workers you have.

    Settings come from the environment (GRAFLOW_CELERY_REDIS_URL and others); `graflow-celery doctor` shows them.
    Exit status: 0 done, 1 the run failed or a probe did, 2 wrong use, 3 a server or worker is missing, 130 interrupted.
    """


def main() -> None:
    """The entry point of the ``graflow-celery`` script."""
    sys.exit(invoke(sys.argv[1:]))


def invoke(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; what goes wrong is told on stderr."""
    traceback = "--traceback" in arguments
    try:
        answer: Any = shell.main(args=list(arguments), prog_name="graflow-celery", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        context = error.ctx if isinstance(error, click.UsageError) else None
        click.echo(f"error: {error.format_message()}", err=True)
        if context is not None:
            click.echo(f"See: {context.command_path} --help", err=True)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        return _interrupted(error)
    except Exception as error:  # noqa: BLE001  boundary: whatever it is, a person reads lines and a script a code
        failures = importlib.import_module("graflow_celery.cli.failures")
        return cast(int, failures.report(error, traceback))
    return answer if isinstance(answer, int) else 0


def _interrupted(error: BaseException) -> int:
    """130 for Ctrl-C; a signal that came as a KeyboardInterrupt of ours says which code."""
    cause = error.__cause__ or error.__context__ or error
    return int(getattr(cause, "exit_code", INTERRUPTED))
