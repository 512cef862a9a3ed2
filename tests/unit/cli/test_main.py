"""The door: light, and the list of commands agrees with the commands."""

from __future__ import annotations

import importlib
import subprocess
import sys

import click
import pytest

from graflow_celery.cli.main import COMMANDS, invoke, shell

HEAVY = ("celery", "kombu", "redis", "pydantic", "rich", "graflow_celery.core", "graflow_celery.workflows")


def test_help_loads_none_of_what_runs_need() -> None:
    script = (
        "import sys; sys.argv = ['graflow-celery', '--help']\n"
        "from graflow_celery.cli.main import invoke\n"
        "code = invoke(['--help'])\n"
        f"print('loaded:', sorted(name for name in {HEAVY!r} if name in sys.modules), 'code:', code)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    assert "Usage: graflow-celery" in answer
    assert answer.splitlines()[-1] == "loaded: [] code: 0"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_list_with_the_words_of_its_own_help(name: str) -> None:
    command = shell.get_command(click.Context(shell), name)
    assert command is not None
    assert command.name == name
    if name not in ("worker", "flower"):  # what they take is Celery's to tell
        assert any("--help" in parameter.opts for parameter in command.get_params(click.Context(command)))
    assert command.help


def test_every_module_of_the_list_exists() -> None:
    for module, _ in COMMANDS.values():
        importlib.import_module(f"graflow_celery.cli.{module}")


def test_a_mistyped_command_is_wrong_use_and_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["shwo"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == ["error: No command 'shwo'. Did you mean 'show'?", "See: graflow-celery --help"]


def test_a_mistyped_option_names_the_commands_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["graph", "--fromat", "dot", "x.py"]) == 2
    assert "graflow-celery graph --help" in capsys.readouterr().err


def test_without_a_command_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke([]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Usage:")
    assert all(name in said for name in COMMANDS)


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["--version"]) == 0
    assert capsys.readouterr().out.startswith("graflow-celery 0.")
