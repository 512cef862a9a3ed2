"""How functions travel: which by name, which whole, and what a worker without the module says."""

from __future__ import annotations

import functools
import json
import os.path
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from graflow_celery.codec import location
from graflow_celery.codec.callables import (
    decode_callable,
    encode_callable,
    is_importable,
    register_by_value,
    travels_by_value,
    unregister_by_value,
)
from graflow_celery.core.task import TaskWrapper, task
from graflow_celery.errors import BlobRejectedError, CodeNotFoundError, ConfigError, SerializationError
from tests.unit.codec.modules import Load, loader, main_program


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    with loader(tmp_path) as load:
        yield load


def plain() -> int:
    return 1


def doubled(func: Callable[[], int]) -> Callable[[], int]:
    @functools.wraps(func)
    def wrapper() -> int:
        return 2 * func()

    return wrapper


@doubled
def wrapped() -> int:
    return 1


@task
def tasked() -> int:
    return 1


@task
@doubled
def tasked_and_wrapped() -> int:
    return 1


class Owner:
    @staticmethod
    def static() -> int:
        return 1

    def method(self) -> int:
        return 1


no_name = lambda: 1  # noqa: E731


def round_trip(func: Callable[..., Any]) -> Callable[..., Any]:
    return decode_callable(encode_callable(func, task_id="t"), task_id="t", where="worker w")


def kind(data: bytes) -> str:
    return str(json.loads(data.partition(b"\n")[0])["kind"])


@pytest.mark.parametrize(
    "func",
    [
        plain, wrapped, wrapped.__wrapped__, tasked.func, tasked_and_wrapped.func,  # type: ignore[attr-defined]
        tasked_and_wrapped.func.__wrapped__, Owner.static, Owner.method, Owner, len, os.path.join,  # type: ignore[attr-defined]
    ],
    ids=[
        "plain", "wrapper", "wrapped", "of a task", "wrapper of a task", "wrapped of a task", "static method", "method",
        "class", "builtin", "library",
    ],
)  # fmt: skip
def test_by_name(func: Callable[..., Any]) -> None:
    assert is_importable(func)
    data = encode_callable(func, task_id="t", allow_pickle=False)
    assert kind(data) == "reference"
    assert decode_callable(data, task_id="t", where="worker w", allow_pickle=False) is func


def test_a_task_under_another_decorator() -> None:
    """The function is two wrappers deep, and both of them have a name to go by."""
    assert isinstance(tasked, TaskWrapper)
    assert round_trip(tasked_and_wrapped.func)() == 2
    assert round_trip(tasked.func)() == 1


@pytest.mark.parametrize("which", ["local", "lambda", "bound method", "partial", "callable", "main"])
def test_by_value(which: str) -> None:
    number = 1
    funcs: dict[str, Callable[[], int]] = {
        "local": lambda: number,
        "lambda": no_name,
        "bound method": Owner().method,
        "partial": functools.partial(plain),
        "callable": main_program("class C:\n    def __call__(self): return 1\ntarget = C()")["target"],
        "main": main_program("K = 1\ndef h(): return K\ndef target(): return h()")["target"],
    }
    func = funcs[which]
    assert not is_importable(func)
    assert kind(encode_callable(func, task_id="t")) == "value"
    assert round_trip(func)() == 1


def test_a_name_that_leads_elsewhere_is_not_importable(load: Load) -> None:
    old = load("cc_reloaded", "def f(): return 1").f
    new = load("cc_reloaded", "def f(): return 2").f
    assert is_importable(new)
    assert not is_importable(old)
    assert round_trip(old)() == 1


def test_by_value_is_refused_where_pickle_is_not_allowed() -> None:
    with pytest.raises(SerializationError, match=r"^Task 't': .*lacks pickle.*top level of a module"):
        encode_callable(lambda: 1, task_id="t", allow_pickle=False)


def test_modules_registered_by_value(load: Load) -> None:
    module = load("cc_registered", "K = 1\ndef f(): return K")
    register_by_value("cc_registered")
    try:
        assert travels_by_value("cc_registered")
        assert travels_by_value("cc_registered.sub")
        assert not travels_by_value("cc_registered_too")
        assert not is_importable(module.f)
        data = encode_callable(module.f, task_id="t")
    finally:
        unregister_by_value("cc_registered")
    assert kind(data) == "value"
    assert is_importable(module.f)
    unregister_by_value("cc_registered")
    del sys.modules["cc_registered"]
    (Path(module.__file__ or "")).unlink()
    assert decode_callable(data, task_id="t", where="worker w")() == 1


def test_a_module_that_cannot_be_registered() -> None:
    with pytest.raises(ConfigError, match=r"Module 'no_such_module' cannot be sent by value.*PYTHONPATH"):
        register_by_value("no_such_module")


def test_main_is_always_by_value() -> None:
    assert travels_by_value("__main__")
    assert travels_by_value("__mp_main__")
    assert not travels_by_value("os")


# --- what cannot be sent ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ("LOCK = L()\ndef target(): return LOCK", "global 'LOCK', of type '_thread.lock'"),
        ("def target(x=L()): return x", "a default, of type '_thread.lock'"),
        ("def target(*, x=L()): return x", "default of 'x', of type '_thread.lock'"),
        ("def m(k):\n    def f(): return k\n    return f\ntarget = m(L())", "free variable 'k'"),
        ("LOCK = L()\ndef h(): return LOCK\ndef target(): return h()", "global 'h', of type 'function'"),
        ("class C:\n    def __call__(self): pass\ntarget = C()\ntarget.lock = L()", "attribute 'lock'"),
    ],
)
def test_what_cannot_be_pickled_is_named(source: str, named: str) -> None:
    func = main_program(f"from threading import Lock as L\n{source}")["target"]
    with pytest.raises(SerializationError) as caught:
        encode_callable(func, task_id="t")
    assert str(caught.value).startswith(f"Task 't': its function cannot be sent to workers: {named}")
    assert "cannot pickle '_thread.lock' object" in str(caught.value)
    assert "Make that inside the function" in str(caught.value)
    assert caught.value.what == "task 't'"


# --- what cloudpickle alone gets wrong ----------------------------------------------------------------------


def test_a_function_keeps_the_name_of_its_file() -> None:
    """Tracebacks show it, and the line from it."""
    func = main_program("def target():\n    def inner(): return 1\n    return inner", "/home/me/program.py")["target"]
    assert (there := round_trip(func)).__code__.co_filename == there().__code__.co_filename == "/home/me/program.py"


def test_a_cached_function_of_main_travels() -> None:
    program = main_program(
        "import functools\n@functools.lru_cache(maxsize=7)\ndef fib(n): return n if n < 2 else fib(n - 1) "
        "+ fib(n - 2)\ndef target(n): return fib(n)"
    )
    assert round_trip(program["target"])(30) == 832040
    again = round_trip(program["fib"])
    assert again(30) == 832040
    assert again.cache_parameters() == {"maxsize": 7, "typed": False}  # type: ignore[attr-defined]


def test_a_cached_property_of_main_travels() -> None:
    program = main_program(
        "import functools\nclass C:\n    @functools.cached_property\n    def x(self): return [1]\n"
        "def target():\n    c = C()\n    return c.x is c.x"
    )
    assert round_trip(program["target"])() is True


def test_random_numbers_are_drawn_where_the_function_runs() -> None:
    """Pickled with the client's generator, every member of a group would draw the same numbers."""
    program = main_program("from random import random\ndef target(): return random()")
    func = round_trip(program["target"])
    state = random.getstate()
    random.seed(5)
    expected = random.random()
    random.seed(5)
    assert func() == expected
    random.setstate(state)


def test_the_environment_does_not_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    program = main_program("from os import environ\ndef target(): return environ['CC_SECRET']")
    monkeypatch.setenv("CC_SECRET", "hidden words")
    data = encode_callable(program["target"], task_id="t")
    assert b"hidden words" not in data
    monkeypatch.setenv("CC_SECRET", "there")
    assert decode_callable(data, task_id="t", where="worker w")() == "there"


# --- what a worker does not have ----------------------------------------------------------------------------


def reference(module: str, qualname: str, *unwrap: str) -> bytes:
    header = {"kind": "reference", "module": module, "qualname": qualname, "unwrap": list(unwrap)}
    return json.dumps(header).encode() + b"\n"


def not_found(data: bytes) -> str:
    with pytest.raises(CodeNotFoundError) as caught:
        decode_callable(data, task_id="t", where="worker w")
    assert caught.value.task_id == "t"
    return str(caught.value)


@pytest.mark.parametrize("module", ["no_such_module", "no_such_package.module", "json.no_such_module"])
def test_a_missing_module(module: str) -> None:
    text = not_found(reference(module, "f"))
    assert text.startswith(f"Task 't': module '{module}' cannot be imported on worker w: No module named ")
    assert text.endswith("Install it there, or start the worker where it is on the path (PYTHONPATH).")


def test_a_missing_function() -> None:
    assert "'json' has no attribute 'no_such' on worker w" in not_found(reference("json", "no_such"))
    assert "'json.loads' has no attribute 'func' on worker w" in not_found(reference("json", "loads", "func"))
    assert "'os.sep' is of type 'str' on worker w and cannot be called" in not_found(reference("os", "sep"))


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("from json import no_such_name", "ImportError: cannot import name 'no_such_name'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError: "),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_module_whose_own_code_fails(tmp_path: Path, body: str, cause: str) -> None:
    with loader(tmp_path):
        (tmp_path / "cc_broken.py").write_text(body)
        text = not_found(reference("cc_broken", "f"))
    assert "module 'cc_broken' was found on worker w, but its own code failed while it was imported: " in text
    assert cause in text
    assert "python -c 'import cc_broken'" in text


def test_a_module_missing_inside_a_function_that_travels_by_value(load: Load, tmp_path: Path) -> None:
    load("cc_gone", "def f(): return 1")
    program = main_program("import cc_gone\nfrom cc_gone import f\ndef target(): return cc_gone.f(), f()")
    data = encode_callable(program["target"], task_id="t")
    del sys.modules["cc_gone"]
    (tmp_path / "cc_gone.py").write_text("")
    assert "its function uses what worker w does not have: " in not_found(data)
    del sys.modules["cc_gone"]
    (tmp_path / "cc_gone.py").unlink()
    text = not_found(data)
    assert text.startswith("Task 't': module 'cc_gone' cannot be imported on worker w: No module named 'cc_gone'.")
    assert "PYTHONPATH" in text


def test_bytecode_of_another_python_is_not_loaded() -> None:
    data = json.dumps({"kind": "value", "python": [3, 2]}).encode() + b"\n" + pickle.dumps(exit)
    text = not_found(data)
    assert f"from Python 3.2, and worker w has Python 3.{sys.version_info[1]}" in text


def test_code_that_fails_while_it_is_rebuilt() -> None:
    class Failing:
        def __reduce__(self) -> Any:
            return (int, ("no number",))

    data = json.dumps({"kind": "value", "python": list(sys.version_info[:2])}).encode() + b"\n"
    assert "cannot be rebuilt on worker w: ValueError: invalid literal" in not_found(data + pickle.dumps(Failing()))
    assert "cannot be rebuilt on worker w" in not_found(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"null",
        b"[]",
        b'{"kind": "other"}',
        b'{"kind": "reference"}',
        b'{"kind": "value", "python": 3}',
        b"\xff",
    ],
)
def test_bytes_of_something_else(data: bytes) -> None:
    with pytest.raises(BlobRejectedError, match="task 't' cannot be read on worker w"):
        decode_callable(data, task_id="t", where="worker w")


def test_a_value_that_is_no_function() -> None:
    data = json.dumps({"kind": "value", "python": list(sys.version_info[:2])}).encode() + b"\n"
    with pytest.raises(BlobRejectedError, match="is of type 'int' and cannot be called"):
        decode_callable(data + pickle.dumps(3), task_id="t", where="worker w")


def test_nothing_is_unpickled_where_pickle_is_not_allowed() -> None:
    class Marker:
        def __reduce__(self) -> Any:
            return (_mark, ())

    data = json.dumps({"kind": "value", "python": list(sys.version_info[:2])}).encode() + b"\n" + pickle.dumps(Marker())
    with pytest.raises(BlobRejectedError, match="It was not decoded"):
        decode_callable(data, task_id="t", where="worker w", allow_pickle=False)
    assert not _marked.is_set()


_marked = threading.Event()


def _mark() -> None:
    _marked.set()


# --- across processes ---------------------------------------------------------------------------------------


def test_a_function_of_main_runs_in_another_process(tmp_path: Path) -> None:
    client = tmp_path / "client.py"
    client.write_text(
        "import sys\nfrom graflow_celery.codec.callables import encode_callable\n"
        "K = 20\ndef helper(x): return x + K\n"
        "def target(x): return helper(x) + 1\n"
        "sys.stdout.buffer.write(encode_callable(target, task_id='t'))\n"
    )
    worker = (
        "import sys\nfrom graflow_celery.codec.callables import decode_callable\n"
        "print(decode_callable(sys.stdin.buffer.read(), task_id='t', where='worker w')(21))"
    )
    root = str(Path(location.__file__).parents[2])
    environment = {"PYTHONPATH": root, "PATH": ""}
    sent = subprocess.run([sys.executable, client], capture_output=True, check=True, timeout=60, env=environment)
    got = subprocess.run(
        [sys.executable, "-c", worker], input=sent.stdout, capture_output=True, check=True, timeout=60, env=environment
    )
    assert got.stdout.strip() == b"42"


def test_a_spawned_process_sends_its_main_by_value(tmp_path: Path) -> None:
    program = tmp_path / "spawning.py"
    program.write_text(
        "import multiprocessing, sys\nfrom graflow_celery.codec.callables import encode_callable\ndef "
        "target(): return 1\ndef child(queue): queue.put((target.__module__, encode_callable(target, "
        "task_id='t')))\nif __name__ == '__main__':\n    spawn = multiprocessing.get_context('spawn')\n    "
        "queue = spawn.Queue()\n    process = spawn.Process(target=child, args=(queue,))\n    "
        "process.start()\n    module, data = queue.get(timeout=50)\n    process.join(50)\n    "
        "print(module, data.partition(b'\\n')[0].decode(), b'__mp_main__' in data[:60])\n"
    )
    environment = {"PYTHONPATH": str(Path(location.__file__).parents[2]), "PATH": ""}
    done = subprocess.run([sys.executable, program], capture_output=True, check=True, timeout=60, env=environment)
    assert done.stdout.startswith(b'__mp_main__ {"kind":"value"')
