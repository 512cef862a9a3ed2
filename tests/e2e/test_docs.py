"""The README and the docs are executed, and hold what the code holds: settings, keys, names."""

from __future__ import annotations

import builtins
import dataclasses
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from graflow_celery import errors
from graflow_celery.cli.main import COMMANDS
from graflow_celery.redis_backend.keys import Keys, lock_keys
from graflow_celery.settings import ENV_PREFIX, Settings
from graflow_celery.testing import embedded_cluster
from tests.e2e.markdown import PAGES, ROOT, Block, Page, commands, same_output
from tests.reference import PAGE, reference

COMMAND_TIMEOUT = 60
EVERY_PAGE = pytest.mark.parametrize("page", [Page(path) for path in PAGES], ids=lambda page: page.name)
EXECUTED = [Page(path) for path in PAGES if re.search(r"^```(python|console)$", path.read_text(), re.MULTILINE)]

#: Programs of shell blocks that are not run here: they install, or run for long. The Procfile has a test of its own.
TRUSTED = frozenset({".", "export", "honcho", "pip", "python3", "redis-server"})


# --- what the pages execute ---------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty directory, and workers that can import what is written there, as a reader's can."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)  # of the workers too: what a task writes lies there
    bin_directory = str(Path(sys.executable).parent)
    monkeypatch.setenv("PATH", os.pathsep.join([bin_directory, os.environ["PATH"]]))
    with embedded_cluster() as cluster:
        for name, value in cluster.env.items():
            monkeypatch.setenv(name, value)
        yield tmp_path


@pytest.mark.workers
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", EXECUTED, ids=lambda page: page.name)
def test_blocks_run_and_give_what_the_page_shows(page: Page, desk: Path) -> None:
    following = [*page.blocks[1:], None]
    for block, after in zip(page.blocks, following, strict=True):
        if block.kind == "python":
            (desk / block.file_name).write_text(block.text, encoding="utf-8")
            shown = after.text if after is not None and after.kind == "text" else "..."
            execute_here(page, block, f"python {block.file_name}", shown, desk)
        elif block.kind == "console":
            variables = ""
            for command, shown in commands(block):
                if re.match(r"\w+=\$\(", command):
                    variables += f"{command}\n"
                else:
                    execute_here(page, block, f"{variables}{command}", shown, desk)


def execute_here(page: Page, block: Block, script: str, shown: str, desk: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=desk,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_TIMEOUT,
        check=False,
    )
    place = f"{page.name}:{block.line}: {script}"
    assert same_output(shown, done.stdout), f"{place}\n--- the page shows\n{shown}\n--- it gives\n{done.stdout}"
    assert done.returncode == 0 or "\nerror: " in f"\n{shown}", f"{place} ended with {done.returncode}"


@EVERY_PAGE
def test_blocks_are_of_kinds_that_something_checks(page: Page) -> None:
    kinds = {block.kind for block in page.blocks}
    # acl: test_connections.py gives a user just these rights
    assert kinds <= {"python", "console", "text", "sh", "mermaid", "acl"}, "a block of another kind would go unchecked"


@EVERY_PAGE
def test_shell_blocks_name_commands_that_are_there(page: Page) -> None:
    for line in (line for block in page.blocks if block.kind == "sh" for line in block.text.splitlines()):
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words.pop(0)
        if not words or words[0] in TRUSTED:
            continue
        assert words[0] in ("make", "celery", "graflow-celery"), f"{page.name}: who knows '{line}'?"
        if words[0] == "make":
            subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True, timeout=30)
        if words[0] == "celery":
            assert words[1:3] == ["-A", "graflow_celery"]
            assert words[3] in ("worker", "flower", "inspect")


# --- names --------------------------------------------------------------------------------------------


@EVERY_PAGE
def test_links_lead_somewhere(page: Page) -> None:
    for target in page.links:
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (page.path.parent / name).resolve() if name else page.path
        assert path.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in Page(path).anchors, f"{page.name}: {target} has no such heading"


@EVERY_PAGE
def test_files_that_are_named_exist(page: Page) -> None:
    written = {block.file_name for block in page.blocks if block.kind == "python"}
    for code in page.codes:
        if re.fullmatch(r"[\w.-]*/[\w./-]*|[\w./-]+\.(py|md|toml|lua|conf)|Makefile|Procfile", code):
            places = (ROOT / code, ROOT / "graflow_celery" / code, page.path.parent / code)
            assert code in written or any(place.exists() for place in places), f"{page.name}: `{code}`"


@EVERY_PAGE
def test_commands_and_errors_that_are_named_exist(page: Page) -> None:
    for code in [*page.codes, *(block.text for block in page.blocks)]:
        for command in re.findall(r"(?<![\w./-])graflow-celery ([a-z]+)", code):
            assert command in COMMANDS, f"{page.name}: graflow-celery {command}"
        for name in re.findall(r"\b[A-Z]\w+Error\b", code):
            assert hasattr(errors, name) or hasattr(builtins, name), f"{page.name}: {name}"


def test_the_exit_statuses_are_those_of_the_errors() -> None:
    listed = {int(row[0]) for row in Page(ROOT / "docs/quickstart.md").rows_after("Every command ends")}
    raised = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.GraflowError)
    }
    assert listed == {0, *raised, 130}


def test_the_features_of_graflow_are_shown_by_tests_that_are_there() -> None:
    page = Page(ROOT / "docs/from-graflow.md")
    rows = page.rows_after("## Feature by feature")
    assert len(rows) > 15
    for *_, shown in rows:
        found = re.fullmatch(r"\[([a-z ]+)\]\((\S+\.py)\)", shown)
        assert found is not None, shown
        tests = (page.path.parent / found[2]).read_text(encoding="utf-8")
        assert f"def test_{found[1].replace(' ', '_')}" in tests, f"{found[2]} has no test of the name '{found[1]}'"


def test_the_reference_is_that_of_the_docstrings() -> None:
    written = PAGE.read_text(encoding="utf-8")
    assert written == reference(), "write it anew: python -m tests.reference"


# --- tables -------------------------------------------------------------------------------------------


def settings_table() -> str:
    """The table of the settings as docs/operations.md has it."""
    lines = ["| setting | variable | default | meaning |", "| --- | --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        default = ", ".join(field.default) if isinstance(field.default, tuple) else field.default
        shown = "" if default in ("", None) else f"`{default}`"
        lines.append(f"| `{name}` | `{ENV_PREFIX}{name.upper()}` | {shown} | {field.description} |")
    return "\n".join(lines)


def test_the_table_of_settings_is_that_of_the_code() -> None:
    text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    between = re.search(r"<!-- settings: .*? -->\n(.*?)<!-- end of settings -->", text, re.DOTALL)
    assert between is not None
    assert between[1].strip() == settings_table(), f"docs/operations.md should have:\n\n{settings_table()}"


def test_the_table_of_keys_is_that_of_the_code() -> None:
    keys = Keys("P")
    made = {
        *keys.run("run").all(),
        keys.blob("DIGEST"),
        keys.holders("DIGEST"),
        keys.run("run").restored,
        keys.run("run").logs,
        keys.wake("HUB"),
        *dataclasses.astuple(keys.workers),
        *dataclasses.astuple(keys.metrics),
    }
    made |= {keys.runs, keys.active, keys.checkpoint("NAME"), *lock_keys(keys.run("run").channel, "KEY")}
    made |= {keys.holders("DIGEST"), keys.run("run").restored, keys.duration("HASH"), keys.run("run").joins_of("RETRY")}
    rows = Page(ROOT / "docs/operations.md").rows_after("## Keys")
    assert {key for row in rows for key in re.findall(r"`([^`]+)`", row[0])} == made
