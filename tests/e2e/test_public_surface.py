"""What `graflow_celery` offers is there, costs little to import, and its docstrings' code is code."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

import graflow_celery
from graflow_celery.errors import GraflowError

HEAVY = ("celery", "kombu", "redis", "pydantic", "pydantic_settings", "rich", "click", "cloudpickle", "pytest")

_LITERAL_BLOCK = re.compile(r"::\n\n(?P<text>(?:[ \t]+\S.*\n|\n)+)")


def loaded_after(statements: str) -> set[str]:
    """Those of the heavy libraries that a fresh process has loaded after it executed some statements."""
    program = f"{statements}\nimport sys\nprint(*(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", graflow_celery.__all__)
def test_every_public_name_loads(name: str) -> None:
    found = getattr(graflow_celery, name)
    assert inspect.getdoc(found), f"{name} has no docstring"
    assert found.__module__.startswith("graflow_celery."), name


def test_the_names_are_listed_for_completion() -> None:
    assert set(graflow_celery.__all__) <= set(dir(graflow_celery))
    assert len(set(graflow_celery.__all__)) == len(graflow_celery.__all__)


def test_the_lazy_names_are_those_that_type_checkers_see() -> None:
    source = Path(graflow_celery.__file__).read_text(encoding="utf-8")
    seen = re.findall(r"^    from ([\w.]+) import (\w+) as (\w+)$", source, re.MULTILINE)
    assert sorted(shown for _, _, shown in seen) == sorted(graflow_celery.__all__)
    for module, name, shown in seen:
        assert getattr(importlib.import_module(module), name) is getattr(graflow_celery, shown)


def test_a_name_that_is_not_there_is_an_attribute_error_that_says_so() -> None:
    with pytest.raises(AttributeError, match="'graflow_celery' has no attribute 'wrokflow'"):
        graflow_celery.wrokflow  # noqa: B018


def test_importing_the_package_loads_no_library() -> None:
    assert loaded_after("import graflow_celery") == set()


def test_a_local_run_loads_no_library() -> None:
    program = """
from graflow_celery import task, workflow
with workflow("here") as wf:
    wf.add(task(lambda: 1))
assert wf.execute() == 1
"""
    assert loaded_after(program) == set()


def test_every_error_is_of_one_tree() -> None:
    offered = [getattr(graflow_celery, name) for name in graflow_celery.__all__ if name.endswith("Error")]
    assert offered
    assert all(issubclass(kind, GraflowError) for kind in offered)


def docstring_blocks() -> Iterator[tuple[str, str]]:
    """Every literal block in the docstrings of the package's modules and of their classes and functions."""
    for found in pkgutil.walk_packages(graflow_celery.__path__, "graflow_celery."):
        module = importlib.import_module(found.name)
        members = [member for member in vars(module).values() if getattr(member, "__module__", None) == found.name]
        for owner in (module, *members):
            text = (
                inspect.getdoc(owner) if owner is module or inspect.isclass(owner) or inspect.isfunction(owner) else ""
            )
            for block in _LITERAL_BLOCK.finditer(f"{text}\n"):
                yield getattr(owner, "__qualname__", found.name), textwrap.dedent(block["text"])


def test_python_in_docstrings_compiles() -> None:
    checked: list[str] = []
    for owner, block in docstring_blocks():
        if "├" in block:  # a tree, not a program
            continue
        compile(block, owner, "exec")
        checked.append(owner)
    assert "graflow_celery.testing" in checked
