"""The import hook: makes modules of graflow's names whose attributes are looked up here when they are first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from graflow_celery.compat.table import MODULES, REFUSED_MODULES, REFUSED_NAMES
from graflow_celery.errors import CompatibilityError

PACKAGE = "graflow"
VERSION = "0.2.0"


class CompatModule(ModuleType):
    """A module of graflow's name. Its attributes are ours."""

    def __getattr__(self, name: str) -> Any:
        path = f"{self.__name__}.{name}"
        if path in REFUSED_NAMES:
            raise CompatibilityError(path, REFUSED_NAMES[path])
        home = MODULES[self.__name__].get(name)
        if home is None:
            raise AttributeError(f"module '{self.__name__}' of graflow {VERSION} has no attribute '{name}'")
        value = _resolve(path, home)
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *MODULES[self.__name__]})


class CompatFinder(MetaPathFinder, Loader):
    """Answers for ``graflow`` and everything below it, before any finder that knows an installed one."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != PACKAGE and not fullname.startswith(f"{PACKAGE}."):
            return None
        if fullname in MODULES:
            is_package = any(other.startswith(f"{fullname}.") for other in (*MODULES, *REFUSED_MODULES))
            return ModuleSpec(fullname, self, origin="graflow_celery.compat", is_package=is_package)
        refused = _refused_by(fullname)
        if refused is not None:
            raise CompatibilityError(fullname, REFUSED_MODULES[refused])
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return CompatModule(spec.name, f"graflow {VERSION}'s {spec.name}, by graflow_celery.")

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__all__"] = sorted(MODULES[module.__name__])
        if module.__name__ == PACKAGE:
            vars(module)["__version__"] = VERSION


_FINDER = CompatFinder()


def install() -> None:
    """From now on ``import graflow`` and its submodules mean this package, in this process. Once is enough.

    Raises:
        CompatibilityError: the real graflow has been imported already.
    """
    foreign = [name for name in _loaded() if not isinstance(sys.modules[name], CompatModule)]
    if foreign:
        raise CompatibilityError(
            foreign[0],
            "the real graflow has been imported already. Call graflow_celery.compat.install() before anything imports "
            "it, or uninstall it: pip uninstall graflow.",
        )
    if not installed():
        sys.meta_path.insert(0, _FINDER)


def installed() -> bool:
    """Whether ``import graflow`` means this package in this process."""
    return _FINDER in sys.meta_path


def uninstall() -> None:
    """Undoes :func:`install`. What was imported through it stays usable where it is."""
    if installed():
        sys.meta_path.remove(_FINDER)
    for name in _loaded():
        if isinstance(sys.modules[name], CompatModule):
            del sys.modules[name]


def _loaded() -> list[str]:
    return [name for name in sorted(sys.modules) if name == PACKAGE or name.startswith(f"{PACKAGE}.")]


def _refused_by(module: str) -> str | None:
    """The entry of the table that refuses a module: itself, or a package that it is in."""
    while module:
        if module in REFUSED_MODULES:
            return module
        module = module.rpartition(".")[0]
    return None


def _resolve(path: str, home: str) -> Any:
    module, _, name = home.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except AttributeError as error:
        raise CompatibilityError(path, f"it is to be {home}, which this version does not have yet.") from error
