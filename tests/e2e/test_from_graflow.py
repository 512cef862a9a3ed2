"""Programs for graflow 0.2.0 run unchanged, here and on workers. What they print is what they print with graflow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.graflow_programs import BATCHES, ORDERS, REVIEW
from tests.e2e.shell import Shell

#: By program: what it is, what its workflow results in, and what it prints: observed with graflow 0.2.0 too.
PROGRAMS = {
    "orders": (
        ORDERS,
        "revenue 86, 90 pens left, stock after 2 retries",
        "revenue 86, 90 pens left, stock after 2 retries\n",
    ),
    "review": (
        REVIEW,
        "published after 4 rounds",
        "published after 4 rounds [1, 2, 3] [3, 2, 1, 0]\n",
    ),
    "batches": (BATCHES, "the sum is 45", "the sum is 45 ['load', 'add', 'tell']\n"),
}
RESUMED = "the sum is 45 added ['load', 'add', 'tell']\n"


def result_of(answer: str) -> object:
    return json.loads(answer.splitlines()[-1])["result"]


def as_script(shell: Shell, *arguments: str) -> str:
    line = [sys.executable, "-m", "graflow_celery.compat", *arguments]
    done = subprocess.run(line, cwd=shell.home, env=shell.env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_as_a_script(lonely_shell: Shell, name: str) -> None:
    program, _, printed = PROGRAMS[name]
    assert as_script(lonely_shell, lonely_shell.write(f"{name}.py", program)) == printed


@pytest.mark.parametrize("name", PROGRAMS)
def test_its_workflow_here(lonely_shell: Shell, name: str) -> None:
    program, result, _ = PROGRAMS[name]
    answer = lonely_shell("run", "--graflow", lonely_shell.write(f"{name}.py", program), "--json")
    assert (answer.code, answer.err) == (0, "")
    assert result_of(answer.out) == result


@pytest.mark.workers
@pytest.mark.parametrize("name", PROGRAMS)
def test_its_workflow_on_workers(shell: Shell, name: str) -> None:
    program, result, _ = PROGRAMS[name]
    folder = f"folder={shell.home}"
    file = shell.write(f"{name}.py", program)
    answer = shell("run", "--graflow", file, "--backend", "celery", "--json", "--param", folder)
    assert (answer.code, answer.err) == (0, "")
    assert result_of(answer.out) == result


@pytest.mark.workers
def test_a_checkpoint_of_a_worker_is_resumed_here(shell: Shell) -> None:
    file = shell.write("batches.py", BATCHES)
    assert shell("run", "--graflow", file, "--backend", "celery", "--param", f"folder={shell.home}").code == 0
    assert (shell.home / "added.pkl").is_file()
    assert as_script(shell, file, "resume") == RESUMED


@pytest.mark.workers
def test_workers_import_a_module_that_imports_graflow(lonely_shell: Shell) -> None:
    """A module is imported by the workers themselves: theirs know graflow's name as the command does."""
    lonely_shell.write("shop/__init__.py", "")
    lonely_shell.write("shop/orders.py", ORDERS)
    answer = lonely_shell("run", "--graflow", "shop.orders", "--backend", "embedded", "--json")
    assert (answer.code, answer.err) == (0, "")
    assert result_of(answer.out) == PROGRAMS["orders"][1]


def test_without_the_option_the_name_is_unknown(lonely_shell: Shell) -> None:
    answer = lonely_shell("run", lonely_shell.write("orders.py", ORDERS))
    assert answer.code == 2
    assert "No module named 'graflow'" in answer.err


def test_what_is_missing_is_said(lonely_shell: Shell, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "graflow_celery.compat"]
    for arguments, told in ([], "no script. Give one"), (["absent.py"], "no file 'absent.py'"):
        done = subprocess.run(
            [*line, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1
        assert told in done.stderr
