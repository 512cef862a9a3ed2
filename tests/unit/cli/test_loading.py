"""From a file or module on the command line to a workflow, and what is said when there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from graflow_celery.cli.loading import load_workflow, parse_params
from graflow_celery.codec.callables import travels_by_value
from graflow_celery.core.task import TaskWrapper
from graflow_celery.errors import ConfigError, StoreUnavailableError, WorkflowFileError

ONE = """
from graflow_celery import task, workflow

@task
def fetch():
    return 1

with workflow("one") as wf:
    wf.add(fetch)
"""

TWO = """
from graflow_celery import task, workflow

@task
def fetch():
    return 1

with workflow("one") as first:
    first.add(fetch)
with workflow("two") as second:
    second.add(fetch)
alias = first

def build():
    return second

def broken():
    raise KeyError("no key")

number = 7
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; path and modules as before afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if not name.startswith("graflow_celery."):
            del sys.modules[name]


def write(name: str, text: str) -> str:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return name


def refused(target: str) -> str:
    """The message of the error; in every case it is short, and the caller used it wrongly."""
    with pytest.raises(WorkflowFileError) as caught:
        load_workflow(target)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert 1 <= len(message.splitlines()) <= 3
    return message


@pytest.mark.parametrize("target", ["etl.py", "etl", "./etl.py", "etl.py:wf", "etl:wf"])
def test_a_file_is_named_with_or_without_its_ending_and_the_workflow(target: str) -> None:
    write("etl.py", ONE)
    assert load_workflow(target).name == "one"


def test_a_file_in_another_directory_imports_what_lies_beside_it() -> None:
    write("jobs/beside.py", "NAME = 'from beside'")
    write("jobs/etl.py", "import beside\nfrom graflow_celery import workflow\nwf = workflow(beside.NAME)")
    assert load_workflow("jobs/etl").name == "from beside"


def test_a_module_is_found_from_the_working_directory_and_travels_by_reference() -> None:
    write("pack/__init__.py", "")
    write("pack/etl.py", ONE)
    fetch = load_workflow("pack.etl:wf").graph.get_node("fetch")
    assert isinstance(fetch, TaskWrapper)
    assert fetch.func.__module__ == "pack.etl"
    assert not travels_by_value("pack.etl")


def test_what_a_file_defines_travels_by_value() -> None:
    write("etl.py", ONE)
    fetch = load_workflow("etl.py").graph.get_node("fetch")
    assert isinstance(fetch, TaskWrapper)
    assert travels_by_value(fetch.func.__module__)


def test_the_main_part_of_a_file_stays_quiet() -> None:
    write("etl.py", ONE + "\nif __name__ == '__main__':\n    raise SystemExit('ran as a program')\n")
    assert load_workflow("etl.py").name == "one"


def test_a_function_that_returns_a_workflow_may_be_named() -> None:
    write("etl.py", TWO)
    assert load_workflow("etl.py:build").name == "two"


def test_of_several_workflows_one_has_to_be_named() -> None:
    write("etl.py", TWO)
    assert refused("etl.py") == "'etl.py' has several workflows: first, second. Say which: etl.py:first"
    assert load_workflow("etl.py:second").name == "two"


def test_a_file_that_is_not_there_gets_the_nearest_names() -> None:
    write("jobs/census.py", ONE)
    assert refused("jobs/cesnus.py") == "No file 'jobs/cesnus.py'. Close to it: jobs/census.py."
    assert refused("jops/census.py") == "No file 'jops/census.py'. There is no directory 'jops' either."


def test_a_module_that_is_not_there() -> None:
    write("census.py", ONE)
    assert refused("cesnus") == "No file and no module 'cesnus'. Close to it: census.py."
    assert refused("surely.not.there").startswith(
        "No file and no module 'surely.not.there'. It is looked for on the path"
    )
    assert refused("what is this").startswith("'what is this' is neither a file nor a module's name.")


@pytest.mark.parametrize("target", ["", ":wf"])
def test_a_target_without_a_source(target: str) -> None:
    assert "names no file and no module" in refused(target)


def test_a_directory() -> None:
    Path("jobs/inner").mkdir(parents=True)
    assert "is a directory" in refused("jobs/inner")


def test_a_syntax_error_is_told_with_its_place_and_line() -> None:
    write("etl.py", "x = 1\ndef broken(:\n    pass\n")
    assert refused("etl.py").splitlines() == ["etl.py:2: invalid syntax", "  def broken(:"]


def test_an_exception_while_the_file_is_executed_is_told_with_its_place() -> None:
    write("etl.py", "import json\n\ndef parse():\n    return json.loads('{')\n\nparse()\n")
    message = refused("etl.py")
    assert message.startswith("etl.py:4: JSONDecodeError: Expecting property name")


def test_a_file_that_leaves_the_program() -> None:
    write("etl.py", "import sys\nsys.exit(3)\n")
    assert refused("etl.py") == "etl.py:2: SystemExit: 3"


def test_a_file_of_a_package_is_told_to_be_a_module() -> None:
    write("pack/etl.py", "from . import other\n")
    message = refused("pack/etl.py")
    assert "relative import" in message
    assert "named as a module" in message


def test_a_missing_import_of_the_module_is_not_taken_for_the_module() -> None:
    write("etl.py", "import surely_not_there\n")
    assert refused("etl.py") == "etl.py:1: ModuleNotFoundError: No module named 'surely_not_there'"
    write("pack/__init__.py", "")
    write("pack/etl.py", "import surely_not_there\n")
    assert "pack/etl.py:1: ModuleNotFoundError: No module named 'surely_not_there'" in refused("pack.etl")


def test_an_error_in_the_workflow_itself_is_told_with_its_line() -> None:
    write("etl.py", TWO + "\nwith workflow('three') as third:\n    first_one = fetch(task_id='a', x=1)\n")
    assert "etl.py:" in refused("etl.py")
    write("dup.py", "from graflow_celery import ParallelGroup\nParallelGroup([], name='members')\n")
    assert refused("dup.py") == (
        "dup.py:2: Parallel group 'members' has no members. Give it at least one task, or leave it out."
    )


def test_an_error_of_the_outside_keeps_its_kind() -> None:
    write(
        "etl.py", "from graflow_celery import StoreUnavailableError\nraise StoreUnavailableError('redis://x', 'away')\n"
    )
    with pytest.raises(StoreUnavailableError) as caught:
        load_workflow("etl.py")
    assert caught.value.exit_code == 3


def test_a_name_that_is_not_there_gets_the_nearest() -> None:
    write("etl.py", TWO)
    assert refused("etl.py:secnd") == "'etl.py' has no 'secnd'. There is: second."


def test_a_name_that_is_something_else() -> None:
    write("etl.py", TWO)
    assert "of type int: no workflow" in refused("etl.py:number")
    assert refused("etl.py:broken") == "etl.py:18: KeyError: 'no key'"


def test_a_file_without_a_workflow() -> None:
    write("etl.py", "x = 1\n")
    assert "'etl.py' has no workflow among its names." in refused("etl.py")


def test_parameters_are_json_where_they_are_json_and_text_elsewhere() -> None:
    pairs = [
        "n=3",
        "ratio=0.5",
        "on=true",
        'names=["a", "b"]',
        "text=hello world",
        "empty=",
        "url=redis://x?a=b",
        "q='x'",
    ]
    assert parse_params(pairs) == {
        "n": 3,
        "ratio": 0.5,
        "on": True,
        "names": ["a", "b"],
        "text": "hello world",
        "empty": "",
        "url": "redis://x?a=b",
        "q": "'x'",
    }


@pytest.mark.parametrize("pairs", [["novalue"], ["=x"], ["a=1", "a=2"]])
def test_parameters_that_are_none(pairs: list[str]) -> None:
    with pytest.raises(ConfigError, match="--param"):
        parse_params(pairs)
