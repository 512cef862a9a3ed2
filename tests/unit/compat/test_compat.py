from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import graflow_celery
from graflow_celery import compat
from graflow_celery.compat import CompatibilityError
from graflow_celery.compat.table import MODULES, REFUSED_MODULES, REFUSED_NAMES
from graflow_celery.errors import GraflowError, GraflowRuntimeError
from tests.unit.compat.graflow_names import GRAFLOW

NAMES = [f"{module}.{name}" for module, names in GRAFLOW.items() for name in names]


@pytest.fixture
def installed() -> Iterator[None]:
    compat.install()
    yield
    compat.uninstall()


def refusal_of(module: str) -> str | None:
    above = [module.rsplit(".", depth)[0] for depth in range(module.count(".") + 1)]
    return next((REFUSED_MODULES[name] for name in (module, *above) if name in REFUSED_MODULES), None)


# --- the table ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", GRAFLOW)
def test_every_module_of_graflow_is_mapped_or_refused_by_name(module: str) -> None:
    assert (module in MODULES) != (refusal_of(module) is not None)


@pytest.mark.parametrize("path", NAMES)
def test_every_name_of_graflow_is_mapped_or_refused(path: str) -> None:
    module, _, name = path.rpartition(".")
    if refusal_of(module) is None:
        assert (name in MODULES[module]) != (path in REFUSED_NAMES)


def test_the_table_knows_nothing_that_graflow_does_not_have() -> None:
    mapped = {f"{module}.{name}" for module, names in MODULES.items() for name in names}
    assert {*MODULES, *REFUSED_MODULES} <= set(GRAFLOW)
    assert {*mapped, *REFUSED_NAMES} <= set(NAMES)


# --- importing ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("module", GRAFLOW)
def test_every_module_imports_or_says_why_not(module: str) -> None:
    why = refusal_of(module)
    if why is None:
        assert importlib.import_module(module).__name__ == module
    else:
        with pytest.raises(ImportError) as caught:
            importlib.import_module(module)
        assert isinstance(caught.value, CompatibilityError)
        assert str(caught.value).endswith(f": {why}")
        assert module.startswith(str(caught.value.name))


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("path", NAMES)
def test_every_name_is_ours_or_says_why_not(path: str) -> None:
    """Those that are planned say so; as soon as their home has them, they are found."""
    module, _, name = path.rpartition(".")
    if refusal_of(module) is not None:
        return
    home = MODULES[module].get(name)
    if home is None:
        with pytest.raises(CompatibilityError) as caught:
            getattr(importlib.import_module(module), name)
        assert str(caught.value) == f"{path}: {REFUSED_NAMES[path]}"
        return
    home_module, _, home_name = home.rpartition(".")
    expected = getattr(importlib.import_module(home_module), home_name, None)
    if expected is not None:
        assert getattr(importlib.import_module(module), name) is expected
    else:
        with pytest.raises(CompatibilityError, match="which this version does not have yet"):
            getattr(importlib.import_module(module), name)


@pytest.mark.usefixtures("installed")
def test_a_program_for_graflow_runs() -> None:
    namespace: dict[str, Any] = {}
    exec(PROGRAM, namespace)
    assert namespace["result"] == {"sum": 3}


PROGRAM = """
import graflow
import graflow.core.workflow
from graflow import chain
from graflow.channels.base import Channel
from graflow.coordination.coordinator import CoordinationBackend
from graflow.core.context import TaskExecutionContext
from graflow.core.decorators import task
from graflow.core.handlers.group_policy import AtLeastNGroupPolicy
from graflow.core.workflow import get_current_workflow_context, require_workflow_context, workflow
from graflow.exceptions import GraflowError, ParallelGroupError
from graflow.llm import LLMAgent, LLMClient, make_message
from graflow.llm.agents.base import LLMAgent as SameAgent

assert graflow.__version__ == "0.2.0"
assert graflow.core.workflow.workflow is workflow
assert LLMAgent is SameAgent
assert get_current_workflow_context() is None

with workflow("sums") as wf:
    assert require_workflow_context() is get_current_workflow_context() is wf

    @task
    def one():
        return 1

    @task
    def two():
        return 2

    @task
    def total(one, two):
        return {"sum": one + two}

    group = (one | two).with_execution(backend=CoordinationBackend.THREADING, policy=AtLeastNGroupPolicy(2))
    group >> total

result = wf.execute()
"""


@pytest.mark.usefixtures("installed")
def test_from_import_of_a_refused_name_says_what_to_do() -> None:
    with pytest.raises(ImportError, match=r"graflow\.llm\.AdkLLMAgent: agents of one framework are out of scope"):
        exec("from graflow.llm import AdkLLMAgent")
    with pytest.raises(ImportError, match=r"graflow\.core\.handlers\.docker: Docker is out of scope"):
        exec("from graflow.core.handlers.docker import DockerTaskHandler")


@pytest.mark.usefixtures("installed")
def test_what_graflow_does_not_have_either_is_an_ordinary_error() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'graflow\.core\.nothing'"):
        importlib.import_module("graflow.core.nothing")
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from graflow.core.task import nothing")
    assert not hasattr(importlib.import_module("graflow.core.task"), "nothing")


@pytest.mark.usefixtures("installed")
def test_names_are_listed_for_completion() -> None:
    decorators = importlib.import_module("graflow.core.decorators")
    assert decorators.__all__ == ["task"]
    assert "task" in dir(decorators)
    assert decorators.task is graflow_celery.task


@pytest.mark.usefixtures("installed")
def test_a_workflow_is_made_by_nothing_but_its_with_block() -> None:
    workflows = importlib.import_module("graflow.core.workflow")
    assert workflows.get_current_workflow_context() is None
    for ask in (workflows.require_workflow_context, lambda: workflows.get_current_workflow_context(True)):
        with pytest.raises(GraflowRuntimeError, match="with workflow"):
            ask()


# --- installing ---------------------------------------------------------------------------------------


def test_installing_twice_is_once_and_uninstalling_leaves_no_trace() -> None:
    before = list(sys.meta_path)
    compat.install()
    compat.install()
    assert len(sys.meta_path) == len(before) + 1
    importlib.import_module("graflow.core.decorators")
    compat.uninstall()
    compat.uninstall()
    assert sys.meta_path == before
    assert not [name for name in sys.modules if name.split(".")[0] == "graflow"]


def test_a_graflow_that_is_already_imported_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "graflow.py").write_text("real = True\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("graflow")
    try:
        with pytest.raises(CompatibilityError, match="graflow: the real graflow has been imported already"):
            compat.install()
        assert "CompatFinder" not in {type(finder).__name__ for finder in sys.meta_path}
    finally:
        del sys.modules["graflow"]


def test_ours_is_found_before_one_that_is_only_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "graflow.py").write_text("real = True\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    compat.install()
    try:
        assert not hasattr(importlib.import_module("graflow"), "real")
    finally:
        compat.uninstall()


def test_installing_loads_nothing_heavy() -> None:
    program = """
import sys
import graflow_celery.compat
graflow_celery.compat.install()
import graflow.core.workflow, graflow.llm, graflow.exceptions
print(*(name for name in ("celery", "redis", "pydantic", "litellm", "networkx") if name in sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == ""


def test_the_error_is_of_the_tree_and_survives_pickle() -> None:
    error = CompatibilityError("graflow.prompts", "out of scope")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(error, GraflowError)
    assert copy == error
    assert (str(copy), copy.name, vars(copy)) == (str(error), "graflow.prompts", vars(error))
