"""Modules on disk for tests of what is importable."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

Load = Callable[[str, str], ModuleType]


def main_program(source: str, file: str = "/somewhere/program.py") -> dict[str, Any]:
    """The globals of a program that was run as ``__main__`` from ``file``."""
    namespace: dict[str, Any] = {"__name__": "__main__", "__builtins__": __builtins__}
    exec(compile(source, file, "exec"), namespace)
    return namespace


@contextmanager
def loader(directory: Path) -> Iterator[Load]:
    """Writes a module, imports it, and forgets the version that was imported before; forgets all at the end."""
    loaded: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(directory))
        patch.setattr(sys, "dont_write_bytecode", True)

        def load(name: str, source: str) -> ModuleType:
            (directory / f"{name}.py").write_text(source)
            sys.modules.pop(name, None)
            importlib.invalidate_caches()
            loaded.append(name)
            return importlib.import_module(name)

        try:
            yield load
        finally:
            for name in loaded:
                sys.modules.pop(name, None)
