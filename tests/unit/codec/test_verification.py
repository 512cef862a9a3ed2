"""What counts as other code of a function that is sent by name, and what does not."""

from __future__ import annotations

import json
import os.path
from collections.abc import Iterator
from pathlib import Path

import pytest

from graflow_celery.codec.callables import decode_callable, encode_callable, fingerprint_callable
from graflow_celery.codec.verification import code_fingerprint
from tests.unit.codec.modules import Load, loader

WRAPPED = """
import functools
def deco(n):
    def d(f):
        @functools.wraps(f)
        def w(): return f() + n
        return w
    return d
@deco(1)
def target(): return 1
"""
UNWRAPPED = "def deco(f):\n    def w(): return f() + 1\n    return w\n@deco\ndef target(): return 1"
CLASS = """
import functools
class Root:
    def inherited(self): return 1
class target(Root):
    field = 1
    def __init__(self): self.n = 1
    def __call__(self): return 2
    @staticmethod
    def static(): return 3
    @classmethod
    def of(cls): return 4
    @property
    def known(self): return 5
    @functools.cached_property
    def kept(self): return 6
    @functools.cache
    def cached(self): return 7
"""
NESTED = "def target(x=1):\n    def inner(y): return y + 1\n    return [inner(z) for z in (x, 2)]"
CACHED = "import functools\n@functools.cache\ndef target(): return 1"
MANAGER = "import contextlib\n@contextlib.contextmanager\ndef target(): yield 1"
CLOSURE = "from functools import partial\ndef g(a): return 1\ndef make(f):\n    def w(): return f()\n    return w\n"
CLOSURE += "target = make(partial(g, 1))\ntarget.__qualname__ = 'target'"
DATACLASS = "import dataclasses\n@dataclasses.dataclass\nclass target:\n    a: int = 1\n    def m(self): return 1"

#: A source, and what is replaced in it by what.
SAME = {
    "lines and comments": (NESTED, "    def inner", "\n    # a comment\n\n    def inner"),
    "a default": (NESTED, "x=1", "x=5"),
    "a value in a closure": (WRAPPED, "@deco(1)", "@deco(2)"),
    "a field of a class": (CLASS, "field = 1", "field = 2"),
    "a default of a field": (DATACLASS, "int = 1", "int = 2"),
    "a global": ("K = 1\ndef target(): return K", "K = 1", "K = 2"),
    "a helper": ("def helper(): return 1\ndef target(): return helper()", "return 1", "return 2"),
    "an argument of a partial": (CLOSURE, "partial(g, 1)", "partial(g, 2)"),
}
DIFFERENT = {
    "its code": (NESTED, "(x, 2)", "(x, 3)"),
    "nested code": (NESTED, "y + 1", "y - 1"),
    "what is wrapped": (WRAPPED, "return 1", "return 2"),
    "the wrapper": (WRAPPED, "f() + n", "f() - n"),
    "what is wrapped without wraps": (UNWRAPPED, "target(): return 1", "target(): return 2"),
    "the wrapper without wraps": (UNWRAPPED, "f() + 1", "f() + 2"),
    "what is cached": (CACHED, "return 1", "return 2"),
    "what a context manager does": (MANAGER, "yield 1", "yield 2"),
    "a partial in a closure": (CLOSURE, "g(a): return 1", "g(a): return 2"),
    "the kind of a method": (CLASS, "@staticmethod\n    def static():", "@classmethod\n    def static():"),
    "a method of a dataclass": (DATACLASS, "return 1", "return 2"),
    **{f"method {n} of a class": (CLASS, f"return {n}", f"return {n}0") for n in range(1, 8)},
    "the constructor of a class": (CLASS, "self.n = 1", "self.n = 2"),
}


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    with loader(tmp_path) as load:
        yield load


def encoded(load: Load, source: str) -> tuple[bytes, str]:
    """The reference to a module's ``target``, and the name of the blob that holds it."""
    target = load("cv_module", source).target
    if target.__qualname__ != "target":
        target.__qualname__ = "target"
    return encode_callable(target, task_id="t"), fingerprint_callable(target, what="task 't'")


def differences(data: bytes) -> list[str]:
    found: list[str] = []
    decode_callable(data, task_id="t", where="worker w", on_difference=found.append)
    return found


@pytest.mark.parametrize("name", SAME)
def test_the_same_code(load: Load, name: str) -> None:
    source, old, new = SAME[name]
    data, _ = encoded(load, source)
    assert old in source
    encoded(load, source.replace(old, new))
    assert differences(data) == []


@pytest.mark.parametrize("name", DIFFERENT)
def test_other_code(load: Load, name: str) -> None:
    source, old, new = DIFFERENT[name]
    assert old in source
    data, blob = encoded(load, source)
    assert differences(data) == []
    other, other_blob = encoded(load, source.replace(old, new))
    assert differences(data) == ["cv_module.target"]
    assert differences(other) == []
    assert other_blob != blob, "a blob that says another code lies under another name"


@pytest.mark.parametrize(("field", "value"), [("python", [3, 2]), ("optimize", 2), ("code", None)])
def test_nothing_is_compared_that_cannot_be(load: Load, field: str, value: object) -> None:
    """Another version of Python or level of optimization makes other bytecode of one source."""
    data, _ = encoded(load, "def target(): return 1")
    encoded(load, "def target(): return 2")
    header = json.loads(data)
    assert field in header
    assert differences(json.dumps({**header, field: value}).encode() + b"\n") == []
    assert differences(json.dumps({name: header[name] for name in header if name != field}).encode() + b"\n") == []


PARTS = """
import functools
def f(n=1): return n
class C:
    def __call__(self): return 1
    def m(self): return 2
def whole(): return 1
whole.__qualname__ = "<locals>.whole"
targets = {
    "partial": functools.partial(functools.partial(f, 1)), "method": C().m, "object": C(), "partial method":
    functools.partial(C().m), "whole": whole,
}
"""


@pytest.mark.parametrize(
    ("which", "name", "old", "new"),
    [
        ("partial", "f", "return n", "return -n"),
        ("method", "C.m", "return 2", "return 3"),
        ("object", "C", "return 1\n    def", "return 3\n    def"),
        ("object", "C", "return 2", "return 3"),
        ("partial method", "C.m", "return 2", "return 3"),
    ],
)
def test_what_is_imported_for_an_object_that_travels_whole(
    load: Load, which: str, name: str, old: str, new: str
) -> None:
    """The partial goes whole, and the function that it calls by name."""
    func = load("cv_parts", PARTS).targets[which]
    data = encode_callable(func, task_id="t")
    assert json.loads(data.partition(b"\n")[0])["kind"] == "value"
    blob = fingerprint_callable(func, what="task 't'")
    assert differences(data) == []
    changed = load("cv_parts", PARTS.replace(old, new)).targets[which]
    assert differences(data) == [f"cv_parts.{name}"]
    assert fingerprint_callable(changed, what="task 't'") != blob


def test_what_travels_whole_is_not_compared(load: Load) -> None:
    data = encode_callable(load("cv_parts", PARTS).targets["whole"], task_id="t")
    load("cv_parts", PARTS.replace("whole(): return 1", "whole(): return 2"))
    assert "code" not in json.loads(data.partition(b"\n")[0])
    assert differences(data) == []


def test_what_has_no_code_of_its_own_has_no_fingerprint() -> None:
    assert code_fingerprint(len) is None
    assert code_fingerprint(int) is None
    assert code_fingerprint(os.path.join) is None, "patch versions of Python differ in the library"
