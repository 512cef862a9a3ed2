"""How a function travels: by name where a worker can import it, whole where it cannot.

The bytes are a line of JSON, which says how and where from, and for a function that travels whole a pickle
after it.
"""

from __future__ import annotations

import importlib
import json
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from types import FunctionType
from typing import Any

from graflow_celery.codec.bytecode import global_names
from graflow_celery.codec.canonical import canonical_json
from graflow_celery.codec.fingerprint import fingerprint
from graflow_celery.codec.location import (
    Location,
    home_modules,
    is_importable,
    locate,
    register_by_value,
    sent_by_value,
    travels_by_value,
    type_name,
    unregister_by_value,
)
from graflow_celery.codec.pickling import dump
from graflow_celery.codec.verification import code_conditions, code_fingerprint, innermost
from graflow_celery.core.task import Ship
from graflow_celery.errors import BlobRejectedError, CodeNotFoundError, SerializationError

__all__ = [
    "decode_callable",
    "encode_callable",
    "fingerprint_callable",
    "is_importable",
    "register_by_value",
    "shipping",
    "travels_by_value",
    "unregister_by_value",
]

_INSTALL = "Install it there, or start the worker where it is on the path (PYTHONPATH)"


def shipping(func: Callable[..., Any], ship: Ship) -> AbstractContextManager[None]:
    """For the block, what the function's own module defines travels as ``ship`` says. In this thread alone."""
    return sent_by_value(home_modules(func)) if ship == "value" else nullcontext()


def fingerprint_callable(func: Callable[..., Any], *, what: str, ship: Ship = "auto") -> str:
    """The fingerprint under which :func:`encode_callable`'s bytes are stored. ``what`` names it: ``"task 'x'"``.

    Raises:
        SerializationError: it leads to what has no fingerprint, or goes by ``ship="reference"`` and has no name.
    """
    with shipping(func, ship):
        if ship == "reference" and locate(func) is None:
            raise _unnamed(what)
        return fingerprint((func, _code_of(func).get("code")), what=what)


def encode_callable(func: Callable[..., Any], *, task_id: str, allow_pickle: bool = True, ship: Ship = "auto") -> bytes:
    """The bytes by which a worker gets ``func``: a reference if it is importable, else the function itself.

    With ``ship`` other than ``"auto"`` it is the one or the other. A reference says which code it stands for.

    Raises:
        SerializationError: it has to travel by value and cannot be pickled, or may not be; or it has to go by name,
            and none leads to it.
    """
    with shipping(func, ship):
        location = locate(func)
        if location is not None:
            reference: dict[str, Any] = {
                "kind": "reference",
                "module": location.module,
                "qualname": location.qualname,
                "unwrap": location.unwrap,
                **_code_of(func),
            }
            return canonical_json(reference) + b"\n"
        if ship == "reference":
            raise _unnamed(f"task '{task_id}'")
        return _whole(func, task_id, allow_pickle)


def _unnamed(what: str) -> SerializationError:
    return SerializationError(
        what,
        "ship='reference' wants its function sent by name, and importing its module does not lead to it: it is defined "
        "in __main__, in a file named on the command line or inside of a function, or is a lambda, a partial or "
        "a method of an object. Move it to the top level of a module that the workers have, or use ship='auto'.",
    )


def _whole(func: Callable[..., Any], task_id: str, allow_pickle: bool) -> bytes:
    if not allow_pickle:
        raise SerializationError(
            f"task '{task_id}'",
            "its function cannot be sent by name, as it is defined in __main__, in a file named on the command line or "
            "inside of a function, or has ship='value'; and not by value, as the setting serializers lacks pickle. "
            "Move it to the top level of a module that the workers can import, and name that (`graflow-celery run "
            "PACKAGE.MODULE`), or allow pickle.",
        )
    try:
        payload = dump(func)
    except Exception as error:  # boundary: pickling calls the user's code
        raise SerializationError(
            f"task '{task_id}'",
            f"its function cannot be sent to workers: {_blame(func, error)}. Make that inside the function, "
            "or move the function to a module that the workers can import.",
        ) from error
    header = {"kind": "value", "python": list(sys.version_info[:2]), **_code_of(func)}
    return canonical_json(header) + b"\n" + payload


def _code_of(func: Callable[..., Any]) -> dict[str, Any]:
    """Which code it has that is imported where it is run, and when it can be compared; empty if it brings its own."""
    inner = innermost(func)
    if not is_importable(inner):
        return {}
    return {"code": code_fingerprint(inner), **code_conditions()}


def decode_callable(
    data: bytes,
    *,
    task_id: str,
    where: str,
    allow_pickle: bool = True,
    on_difference: Callable[[str], None] | None = None,
) -> Callable[..., Any]:
    """The function that :func:`encode_callable` was given.

    ``where`` names this process in errors: ``"worker w1"``. ``on_difference`` is called with the name of a function
    that has other code here than where it was encoded, if that can be said: see :mod:`.verification`.

    Raises:
        CodeNotFoundError: a module that it needs cannot be imported here, or has no such function.
        BlobRejectedError: the bytes were not made by :func:`encode_callable`, or need pickle, which is not
            allowed.
    """
    line, _, payload = data.partition(b"\n")
    try:
        header = json.loads(line)
        location, version = _read_header(header)
    except (ValueError, KeyError, TypeError) as error:
        raise BlobRejectedError(
            f"The function of task '{task_id}' cannot be read on {where} ({error!r}). Use the same version "
            "of graflow_celery where it was submitted and there."
        ) from error
    if location is not None:
        func = _import_callable(location, task_id, where)
    elif allow_pickle:
        func = _load_callable(payload, version, task_id, where)
    else:
        raise BlobRejectedError(
            f"The function of task '{task_id}' travels by value, and setting serializers does not allow "
            f"pickle on {where}. It was not decoded. Move it to a module that the workers have, or allow "
            "pickle."
        )
    if on_difference is not None and _differs(func, header):
        on_difference(_name_of(func))
    return func


def _read_header(header: Mapping[str, Any]) -> tuple[Location | None, tuple[int, ...]]:
    """Where the function is, or which version of Python its bytecode is for."""
    if header["kind"] == "reference":
        return Location(str(header["module"]), str(header["qualname"]), tuple(map(str, header["unwrap"]))), ()
    if header["kind"] == "value":
        return None, tuple(map(int, header["python"]))
    raise ValueError(f"unknown kind {header['kind']!r}")


def _differs(func: object, header: Mapping[str, Any]) -> bool:
    """Whether the code that was imported for a function is another one than its header says, where that compares."""
    if header.get("code") is None or any(header.get(name) != here for name, here in code_conditions().items()):
        return False
    return bool(header["code"] != code_fingerprint(innermost(func)))


def _name_of(func: object) -> str:
    inner: Any = innermost(func)
    return f"{inner.__module__}.{inner.__qualname__}"


def _import_callable(location: Location, task_id: str, where: str) -> Callable[..., Any]:
    found: object = _import_module(location.module, task_id, where)
    way = location.module
    for name in (*location.qualname.split("."), *location.unwrap):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise CodeNotFoundError(
                task_id,
                f"'{way}' has no attribute '{name}' on {where}: its version there differs from the one that "
                "the workflow was submitted with. Install the same version there.",
            ) from None
        way = f"{way}.{name}"
    if not callable(found):
        raise CodeNotFoundError(
            task_id,
            f"'{way}' is of type '{type_name(found)}' on {where} and cannot be called. Install the same "
            "version there as the workflow was submitted with.",
        )
    return found


def _import_module(name: str, task_id: str, where: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise CodeNotFoundError(
                task_id, f"module '{name}' cannot be imported on {where}: {error}. {_INSTALL}."
            ) from error
        raise _failed_body(name, task_id, where, error) from error
    except (Exception, SystemExit) as error:  # boundary: the module's body is the user's code
        raise _failed_body(name, task_id, where, error) from error


def _failed_body(name: str, task_id: str, where: str, error: BaseException) -> CodeNotFoundError:
    return CodeNotFoundError(
        task_id,
        f"module '{name}' was found on {where}, but its own code failed while it was imported: "
        f"{type(error).__name__}: {error}. Try there: python -c 'import {name}'",
    )


def _load_callable(payload: bytes, version: tuple[int, ...], task_id: str, where: str) -> Callable[..., Any]:
    here = tuple(sys.version_info[:2])
    if version != here:
        raise CodeNotFoundError(
            task_id,
            f"its function travels by value from Python {_dotted(version)}, and {where} has Python "
            f"{_dotted(here)}, which reads other bytecode. Use the same version, or move the function to a "
            "module that the workers have.",
        )
    try:
        func = pickle.loads(payload)
    except ModuleNotFoundError as error:
        module = error.name or str(error)
        raise CodeNotFoundError(
            task_id,
            f"module '{module}' cannot be imported on {where}: {error}. {_INSTALL}; its function uses it.",
        ) from error
    except (ImportError, AttributeError) as error:
        raise CodeNotFoundError(
            task_id,
            f"its function uses what {where} does not have: {error}. Install the same versions there as the "
            "workflow was submitted with.",
        ) from error
    except (Exception, SystemExit) as error:  # boundary: unpickling runs the user's code
        raise CodeNotFoundError(
            task_id, f"its function cannot be rebuilt on {where}: {type(error).__name__}: {error}."
        ) from error
    if not callable(func):
        raise BlobRejectedError(
            f"The function of task '{task_id}' is of type '{type_name(func)}' and cannot be called."
        )
    return func  # type: ignore[no-any-return]  # callable() was just asked


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)


def _blame(func: object, error: Exception) -> str:
    """Which of the things that the function refers to cannot be pickled, and why."""
    reason = str(error) or type(error).__name__
    for role, value in _parts(func):
        try:
            dump(value)
        except Exception as inner:  # noqa: BLE001  boundary: pickling calls the user's code
            return f"{role}, of type '{type_name(value)}', cannot be pickled ({inner})"
    return reason


def _parts(func: object) -> Iterator[tuple[str, object]]:
    if not isinstance(func, FunctionType):
        if isinstance(state := getattr(func, "__dict__", None), Mapping):
            yield from ((f"attribute '{name}'", value) for name, value in state.items())
        return
    for name, cell in zip(func.__code__.co_freevars, func.__closure__ or (), strict=True):
        yield f"free variable '{name}'", cell
    for name in global_names(func.__code__):
        if name in func.__globals__:
            yield f"global '{name}'", func.__globals__[name]
    yield from (("a default", value) for value in func.__defaults__ or ())
    yield from ((f"default of '{name}'", value) for name, value in (func.__kwdefaults__ or {}).items())
