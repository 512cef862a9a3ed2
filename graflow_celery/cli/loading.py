"""From ``FILE[.py][:NAME]`` or ``MODULE[:NAME]`` to a workflow, and from ``--param`` to values.

A file is loaded as a module of a name of its own, never as ``__main__``, so that ``if __name__ == "__main__":`` stays
quiet. What it defines travels to the workers by value: they need not have the file.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from graflow_celery.codec.callables import register_by_value
from graflow_celery.errors import ConfigError, GraflowError, GraphCompilationError, WorkflowFileError
from graflow_celery.terminal.wording import shortened
from graflow_celery.workflows import WorkflowContext

_PRIVATE = "graflow_workflow_file_"
_SHAPE = "FILE[.py][:NAME] or MODULE[:NAME]"


def load_workflow(target: str) -> WorkflowContext:
    """The workflow that ``target`` names.

    Args:
        target: a file or a module, then ``:NAME`` of a workflow or of a function without arguments that returns one.
            Without ``:NAME``, the only workflow among the module's names.

    Raises:
        WorkflowFileError: there is no such file or module, it cannot be executed, or no single workflow stands out.
    """
    source, _, name = target.partition(":")
    if not source:
        raise WorkflowFileError(f"'{target}' names no file and no module. Give {_SHAPE}.")
    module = _load_file(path) if (path := _as_file(source)) is not None else _load_module(source)
    return _named(module, name, source) if name else _only(module, source)


def parse_params(pairs: Iterable[str]) -> dict[str, Any]:
    """``k=v`` pairs as values for the channel: ``v`` is read as JSON if it is JSON, else it is text.

    Raises:
        ConfigError: a pair has no ``=`` or no key, or a key comes twice.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ConfigError(f"--param '{pair}' is not KEY=VALUE. Write: --param {key or 'key'}=value")
        if key in values:
            raise ConfigError(f"--param {key} is given twice. Give it once.")
        try:
            values[key] = json.loads(text)
        except ValueError:
            values[key] = text
    return values


def _as_file(source: str) -> Path | None:
    """The file that is meant, or None: then it is a module. Raises WorkflowFileError for a file that is missing."""
    for path in (Path(source), Path(source + ".py")):
        if path.is_file():
            return path.resolve()
    if not source.endswith(".py") and os.sep not in source:
        return None
    if Path(source).is_dir():
        raise WorkflowFileError(f"'{source}' is a directory. Name a file in it, or a module: {_SHAPE}.")
    raise WorkflowFileError(f"No file '{source}'.{_nearest_files(Path(source))}")


def _load_file(path: Path) -> ModuleType:
    name = _PRIVATE + re.sub(r"\W", "_", path.stem)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise WorkflowFileError(f"'{path.name}' is no Python file. Give {_SHAPE}.")
    module = importlib.util.module_from_spec(spec)
    execute: Callable[[ModuleType], None] = spec.loader.exec_module
    sys.modules[name] = module
    _put_on_path(path.parent)
    _execute(lambda: execute(module), str(path))
    register_by_value(name)
    return module


def _load_module(name: str) -> ModuleType:
    _put_on_path(Path.cwd())
    if not all(part.isidentifier() for part in name.split(".")):
        raise WorkflowFileError(f"'{name}' is neither a file nor a module's name.{_nearest_files(Path(name))}")
    module: list[ModuleType] = []
    try:
        _execute(lambda: module.append(importlib.import_module(name)), name)
    except WorkflowFileError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name and f"{name}.".startswith(f"{cause.name}."):
            hint = _nearest_files(Path(name + ".py")) or f" It is looked for on the path: {Path.cwd()} and PYTHONPATH."
            raise WorkflowFileError(f"No file and no module '{name}'.{hint}") from None
        raise
    return module[0]


def _execute(load: Callable[[], None], where: str) -> None:
    """Executes a user's module; whatever it does wrong is told with its place."""
    try:
        load()
    except SyntaxError as error:
        place = f"{shortened(error.filename or where)}:{error.lineno or 0}"
        line = (error.text or "").strip()
        raise WorkflowFileError(f"{place}: {error.msg}" + (f"\n  {line}" if line else "")) from error
    except GraphCompilationError as error:
        raise WorkflowFileError(f"{_place(error, where)}: {error}") from error
    except GraflowError:
        raise
    except (Exception, SystemExit) as error:  # boundary: the module's body is the user's code
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if isinstance(error, ImportError) and "relative import" in str(error):
            what += f"\nA file that belongs to a package is named as a module: {_SHAPE}."
        raise WorkflowFileError(f"{_place(error, where)}: {what}") from error


def _named(module: ModuleType, name: str, source: str) -> WorkflowContext:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise WorkflowFileError(f"'{source}' has no '{name}'.{_nearest(name, _candidates(module))}")
        found = getattr(found, part)
    if not isinstance(found, WorkflowContext) and callable(found):
        made: list[Any] = []
        _execute(lambda: made.append(found()), f"{source}:{name}")
        found = made[0]
    if not isinstance(found, WorkflowContext):
        raise WorkflowFileError(
            f"'{name}' in '{source}' is of type {type(found).__name__}: no workflow, and no function that returns one."
        )
    return found


def _only(module: ModuleType, source: str) -> WorkflowContext:
    found = _workflows(module)
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        names = ", ".join(found)
        raise WorkflowFileError(f"'{source}' has several workflows: {names}. Say which: {source}:{next(iter(found))}")
    raise WorkflowFileError(
        f"'{source}' has no workflow among its names. Write `with workflow(\"name\") as wf:` at its top level, "
        f"or name a function that returns one: {source}:NAME"
    )


def _workflows(module: ModuleType) -> Mapping[str, WorkflowContext]:
    """The module's workflows by the first name that each has."""
    named = {name: value for name, value in vars(module).items() if isinstance(value, WorkflowContext)}
    first = {id(value): name for name, value in reversed(named.items())}
    return {name: value for name, value in named.items() if first[id(value)] == name}


def _candidates(module: ModuleType) -> list[str]:
    """What could be meant: workflows, and functions that the module itself defines."""
    own = [
        name
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__ and not name.startswith("_")
    ]
    return [*_workflows(module), *own]


def _nearest(name: str, candidates: Iterable[str]) -> str:
    listed = list(candidates)
    near = difflib.get_close_matches(name, listed, n=3) or listed[:3]
    return f" There is: {', '.join(near)}." if near else ""


def _nearest_files(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f" There is no directory '{folder}' either."
    names = [entry.name for entry in folder.iterdir() if entry.suffix == ".py"]
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    return f" Close to it: {', '.join(str(folder / name) for name in near)}." if near else ""


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _place(error: BaseException, where: str) -> str:
    """Where in the user's own code it happened: the last frame outside of this package and of Python's own."""
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    return f"{shortened(own[-1].filename)}:{own[-1].lineno}" if own else shortened(where)


def _is_users(filename: str) -> bool:
    return not filename.startswith(("<", *_foreign()))


def _foreign() -> Iterator[str]:
    yield str(Path(__file__).resolve().parent.parent)
    yield str(Path(os.__file__).parent)
