"""What changes a fingerprint and what does not: a table of pairs of sources, then single points."""

from __future__ import annotations

import collections
import functools
import importlib
import itertools
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from graflow_celery.codec.callables import register_by_value, unregister_by_value
from graflow_celery.codec.fingerprint import fingerprint
from graflow_celery.errors import SerializationError
from tests.unit.codec.modules import Load, loader, main_program

_FILES = itertools.count()


def target_of(source: str) -> str:
    return fingerprint(main_program(source, f"/somewhere/{next(_FILES)}/program.py")["target"])


SAME = {
    "comments, blank lines and files": (
        "def target(x):\n    y = x + 1\n    return y",
        "# a comment\n\n\ndef target(x):\n    # another\n    y = x + 1  # and one more\n\n    return y",
    ),
    "order of other definitions": (
        "def helper(): return 1\nK = 2\ndef target(): return helper() + K",
        "def target(): return helper() + K\nK = 2\ndef helper(): return 1",
    ),
    "globals that it does not name": (
        "OTHER = 1\ndef target(): return 1",
        "OTHER = 2\ndef target(): return 1",
    ),
    "an attribute that has the name of a global": (
        "data = 1\ndef target(x): return x.data",
        "data = 2\ndef target(x): return x.data",
    ),
    "order of a dict": (
        "K = {'a': 1, 'b': [2]}\ndef target(): return K",
        "K = {'b': [2], 'a': 1}\ndef target(): return K",
    ),
    "order of a set": (
        "K = {'a', 'b', 'c', ('d', 1)}\ndef target(): return K",
        "K = {('d', 1), 'c', 'b', 'a'}\ndef target(): return K",
    ),
    "order of class attributes": (
        "class target:\n    a = 1\n    def f(self): return 1\n    b = 2",
        "class target:\n    b = 2\n    def f(self): return 1\n\n    a = 1",
    ),
    "line of a class inside a function": (
        "def target():\n    class A:\n        x = 1\n        def f(self): self.p = self.q = 5\n    return A",
        (
            "\n\n\n\ndef target():\n\n    class A:\n\n        x = 1\n        def f(self): self.p = self.q = "
            "5\n    return A"
        ),
    ),
    "where the file is": (
        "__file__ = '/a/x.py'\ndef target(): return __file__",
        "__file__ = '/b/x.py'\ndef target(): return __file__",
    ),
    "functions that call each other": (
        "def target(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and target(n - 1)",
        "def odd(n): return n != 0 and target(n - 1)\ndef target(n): return n == 0 or odd(n - 1)",
    ),
    "keyword order of a partial": (
        "import functools\ndef f(**k): return k\ntarget = functools.partial(f, a=1, b=2)",
        "import functools\ndef f(**k): return k\ntarget = functools.partial(f, b=2, a=1)",
    ),
    "shared or copied data": (
        "ROW = [1]\nK = [ROW, ROW]\ndef target(): return K",
        "K = [[1], [1]]\ndef target(): return K",
    ),
    "lambdas on other lines": ("target = lambda x: x + 1", "\n\ntarget = (\n    lambda x: x + 1)"),
}

DIFFERENT = {
    "operator": ("def target(x): return x + 1", "def target(x): return x - 1"),
    "constant": ("def target(x): return x + 1", "def target(x): return x + 2"),
    "type of a constant": ("def target(x): return x + 1", "def target(x): return x + 1.0"),
    "bool and int": ("def target(): return True", "def target(): return 1"),
    "sign of zero": ("def target(): return 0.0", "def target(): return -0.0"),
    "set constant": ("def target(x): return x in {1, 2}", "def target(x): return x in {1, 3}"),
    "name of a global": ("def target(x): return len(x)", "def target(x): return max(x)"),
    "attribute": ("def target(x): return x.a", "def target(x): return x.b"),
    "name of a parameter": ("def target(x): return 1", "def target(y): return 1"),
    "kind of a parameter": ("def target(x): return 1", "def target(*, x): return 1"),
    "positional only": ("def target(x): return 1", "def target(x, /): return 1"),
    "default": ("def target(x=1): return x", "def target(x=2): return x"),
    "mutable default": ("def target(x=[1]): return x", "def target(x=[2]): return x"),
    "no default": ("def target(x): return x", "def target(x=None): return x"),
    "keyword default": ("def target(*, x=1): return x", "def target(*, x=2): return x"),
    "exception handler": (
        "def target():\n    try:\n        f()\n        g()\n    except ValueError:\n        pass",
        "def target():\n    f()\n    try:\n        g()\n    except ValueError:\n        pass",
    ),
    "generator": ("def target(): return 1", "def target(): yield 1"),
    "coroutine": ("def target(): return 1", "async def target(): return 1"),
    "nested function": (
        "def target():\n    def f(): return 1\n    return f",
        "def target():\n    def f(): return 2\n    return f",
    ),
    "comprehension": (
        "def target(a): return [x + 1 for x in a]",
        "def target(a): return [x + 2 for x in a]",
    ),
    "free variable": (
        "def make(n):\n    def f(): return n\n    return f\ntarget = make(1)",
        "def make(n):\n    def f(): return n\n    return f\ntarget = make(2)",
    ),
    "free variable that is a function": (
        "def make(n):\n    def f(): return n()\n    return f\ntarget = make(lambda: 1)",
        "def make(n):\n    def f(): return n()\n    return f\ntarget = make(lambda: 2)",
    ),
    "module constant": ("K = 1\ndef target(): return K", "K = 2\ndef target(): return K"),
    "nested constant": ("K = {'a': [1]}\ndef target(): return K", "K = {'a': [2]}\ndef target(): return K"),
    "tuple and list": ("K = (1,)\ndef target(): return K", "K = [1]\ndef target(): return K"),
    "set and frozenset": ("K = {1}\ndef target(): return K", "K = frozenset([1])\ndef target(): return K"),
    "nesting of a list": ("K = [1, [2]]\ndef target(): return K", "K = [[1], 2]\ndef target(): return K"),
    "which key has which value": (
        "K = {'a': 1, 'b': 2}\ndef target(): return K",
        "K = {'a': 2, 'b': 1}\ndef target(): return K",
    ),
    "helper": (
        "def helper(): return 1\ndef target(): return helper()",
        "def helper(): return 2\ndef target(): return helper()",
    ),
    "helper of a helper": (
        "def deep(): return 1\ndef helper(): return deep()\ndef target(): return helper()",
        "def deep(): return 2\ndef helper(): return deep()\ndef target(): return helper()",
    ),
    "constant of a helper": (
        "K = 1\ndef helper(): return K\ndef target(): return helper()",
        "K = 2\ndef helper(): return K\ndef target(): return helper()",
    ),
    "helper of a nested function": (
        "def helper(): return 1\ndef target(): return [helper() for _ in 'ab']",
        "def helper(): return 2\ndef target(): return [helper() for _ in 'ab']",
    ),
    "one of two that call each other": (
        "def target(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and target(n - 1)",
        "def target(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and target(n - 2)",
    ),
    "which of two that call each other": (
        "def a(n): return b(n)\ndef b(n): return a(n) + 1\ntarget = a",
        "def a(n): return b(n)\ndef b(n): return a(n) + 1\ntarget = b",
    ),
    "imported function": (
        "from os.path import join as f\ndef target(): return f('a')",
        "from os.path import split as f\ndef target(): return f('a')",
    ),
    "imported module": (
        "import json as m\ndef target(): return m.loads('1')",
        "import pickle as m\ndef target(): return m.loads('1')",
    ),
    "method of a class": (
        "class A:\n    def f(self): return 1\ndef target(): return A().f()",
        "class A:\n    def f(self): return 2\ndef target(): return A().f()",
    ),
    "base class": (
        "class A: pass\nclass target(A): pass",
        "class A:\n    x = 1\nclass target(A): pass",
    ),
    "kind of a method": (
        "class target:\n    @staticmethod\n    def f(): return 1",
        "class target:\n    @classmethod\n    def f(): return 1",
    ),
    "property": (
        "class target:\n    @property\n    def f(self): return 1",
        "class target:\n    @property\n    def f(self): return 2",
    ),
    "slots": (
        "class target:\n    __slots__ = ('a',)",
        "class target:\n    __slots__ = ('b',)",
    ),
    "field of a dataclass": (
        "import dataclasses\n@dataclasses.dataclass\nclass target:\n    a: int = 1",
        "import dataclasses\n@dataclasses.dataclass\nclass target:\n    a: int = 2",
    ),
    "value of a dataclass": (
        "import dataclasses\n@dataclasses.dataclass\nclass P:\n    a: int\ntarget = P(1)",
        "import dataclasses\n@dataclasses.dataclass\nclass P:\n    a: int\ntarget = P(2)",
    ),
    "value of a frozen dataclass with slots": (
        "import dataclasses\n@dataclasses.dataclass(frozen=True, slots=True)\nclass P:\n    a: int\ntarget = P(1)",
        "import dataclasses\n@dataclasses.dataclass(frozen=True, slots=True)\nclass P:\n    a: int\ntarget = P(2)",
    ),
    "member of an enum": (
        "import enum\nclass E(enum.Enum):\n    A = 1\n    B = 2\ntarget = E.A",
        "import enum\nclass E(enum.Enum):\n    A = 1\n    B = 2\ntarget = E.B",
    ),
    "value of an enum's member": (
        "import enum\nclass target(enum.Enum):\n    A = 1",
        "import enum\nclass target(enum.Enum):\n    A = 2",
    ),
    "method of an enum": (
        "import enum\nclass target(enum.Enum):\n    A = 1\n    def f(self): return 1",
        "import enum\nclass target(enum.Enum):\n    A = 1\n    def f(self): return 2",
    ),
    "argument of a partial": (
        "import functools\ndef f(x): return x\ntarget = functools.partial(f, 1)",
        "import functools\ndef f(x): return x\ntarget = functools.partial(f, 2)",
    ),
    "function of a partial": (
        "import functools\ndef f(x): return x\ntarget = functools.partial(f, 1)",
        "import functools\ndef f(x): return -x\ntarget = functools.partial(f, 1)",
    ),
    "object of a bound method": (
        "class A:\n    def __init__(self, n): self.n = n\n    def f(self): return self.n\ntarget = A(1).f",
        "class A:\n    def __init__(self, n): self.n = n\n    def f(self): return self.n\ntarget = A(2).f",
    ),
    "code of a bound method": (
        "class A:\n    def f(self): return 1\ntarget = A().f",
        "class A:\n    def f(self): return 2\ntarget = A().f",
    ),
    "state of a callable": (
        "class A:\n    def __init__(self, n): self.n = n\n    def __call__(self): return self.n\ntarget = A(1)",
        "class A:\n    def __init__(self, n): self.n = n\n    def __call__(self): return self.n\ntarget = A(2)",
    ),
    "code of a callable": (
        "class A:\n    def __call__(self): return 1\ntarget = A()",
        "class A:\n    def __call__(self): return 2\ntarget = A()",
    ),
    "what a decorator wraps": (
        (
            "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def w(): return f()\n    return w\n"
            "@deco\ndef target(): return 1"
        ),
        (
            "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def w(): return f()\n    return w\n"
            "@deco\ndef target(): return 2"
        ),
    ),
    "what a decorator does": (
        (
            "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def w(): return f()\n    return w\n"
            "@deco\ndef target(): return 1"
        ),
        (
            "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def w(): return -f()\n    return w\n"
            "@deco\ndef target(): return 1"
        ),
    ),
    "cached function": (
        "import functools\n@functools.cache\ndef target(n): return n",
        "import functools\n@functools.cache\ndef target(n): return n + 1",
    ),
    "size of a cache": (
        "import functools\n@functools.lru_cache(maxsize=1)\ndef target(n): return n",
        "import functools\n@functools.lru_cache(maxsize=2)\ndef target(n): return n",
    ),
    "order of an ordered dict": (
        "from collections import OrderedDict\ntarget = OrderedDict(a=1, b=2)",
        "from collections import OrderedDict\ntarget = OrderedDict(b=2, a=1)",
    ),
    "order of a deque": (
        "from collections import deque\ntarget = deque([1, 2])",
        "from collections import deque\ntarget = deque([2, 1])",
    ),
    "regular expression": ("import re\ntarget = re.compile('a')", "import re\ntarget = re.compile('a', re.I)"),
    "a name": ("def a(): return 1\ntarget = a", "def b(): return 1\ntarget = b"),
    "a type hint, which travels": ("def target(x: int): return x", "def target(x: str): return x"),
    "an attribute": ("def target(): return 1\ntarget.n = 1", "def target(): return 1\ntarget.n = 2"),
    "a dict and its items": ("target = {'a': 1}", "target = [('a', 1)]"),
    "text and bytes": ("target = 'a'", "target = b'a'"),
    "long texts": ("target = 'a' * 99", "target = 'a' * 100"),
}


@pytest.mark.parametrize("name", SAME)
def test_same(name: str) -> None:
    one, other = SAME[name]
    assert target_of(one) == target_of(other)


@pytest.mark.parametrize("name", DIFFERENT)
def test_different(name: str) -> None:
    one, other = DIFFERENT[name]
    assert target_of(one) == target_of(one)
    assert target_of(one) != target_of(other)


def test_all_the_different_ones_differ() -> None:
    found = [target_of(source) for pair in DIFFERENT.values() for source in pair]
    sources = [source for pair in DIFFERENT.values() for source in pair]
    assert len(set(found)) == len(set(sources))


def test_is_32_hexadecimal_characters() -> None:
    for obj in (1, "a", [1], len, fingerprint, sys):
        assert len(fingerprint(obj)) == 32
        int(fingerprint(obj), 16)


EVERYDAY: list[object] = [
    None, True, 1, -1, 10**5000, 1.5, float("nan"), float("inf"), 1j, "ä", "\udcff", b"x", bytearray(b"x"), ...,
    NotImplemented, (), [], {}, set(), frozenset(), range(3), slice(1, 2), int, type(None), len, str.upper, "a".upper,
    object(), object, Path("a"), collections.Counter("aab"), collections.defaultdict(list), list[int], int | None,
    random.Random(3), functools.partial(max, 1), importlib, sys.stdout, random.choice, ValueError("x"),
    threading.Thread, itertools.chain,
]  # fmt: skip


@pytest.mark.parametrize("obj", EVERYDAY, ids=[f"{n}-{type(obj).__name__}" for n, obj in enumerate(EVERYDAY)])
def test_everyday_values_have_one(obj: object) -> None:
    assert fingerprint(obj) == fingerprint(obj)


def test_it_lasts_while_the_function_runs() -> None:
    """The interpreter rewrites bytecode as it learns about types, and a class fills in attributes when asked."""
    space = main_program(
        "class A:\n    x = 1\ndef target(n):\n    s = 0\n    for i in range(n):\n        s += i * A.x\n    return s"
    )
    before = fingerprint(space["target"]), fingerprint(space["A"])
    for _ in range(100):
        space["target"](100)
    assert space["A"].__annotations__ == {}
    assert (fingerprint(space["target"]), fingerprint(space["A"])) == before


def test_a_list_that_holds_itself() -> None:
    def ring() -> list[Any]:
        made: list[Any] = [1]
        made.append(made)
        return made

    other = ring()
    other[0] = 2
    assert fingerprint(ring()) == fingerprint(ring()) != fingerprint(other)


def test_depth_is_no_problem() -> None:
    deep: list[Any] = []
    for _ in range(20_000):
        deep = [deep]
    assert fingerprint(deep) != fingerprint([deep])


def test_many_functions_that_all_call_each_other() -> None:
    names = [f"f{number}" for number in range(40)]
    source = "\n".join(f"def {name}(): return {name!r}, {', '.join(names)}" for name in names)
    assert target_of(f"{source}\ntarget = f0") != target_of(f"{source}\ntarget = f1")


def test_what_every_process_has_of_its_own_counts_by_name() -> None:
    state = random.getstate()
    program = (
        "import os, sys\nfrom random import choice, random\n"
        "def target(): return choice('ab'), random(), os.environ, sys.stdout"
    )
    before = target_of(program)
    random.seed(1)
    assert target_of(program) == before
    random.setstate(state)


def test_a_stand_in_counts_instead() -> None:
    class Wrapper:
        def __init__(self, func: Callable[[], object]) -> None:
            self.func = func
            self.lock = threading.Lock()

        def __graflow_fingerprint__(self) -> object:
            return self.func

    def one() -> int:
        return 1

    def call() -> object:
        return wrapped.func()

    wrapped = Wrapper(one)
    assert fingerprint(wrapped) == fingerprint(one) == fingerprint(Wrapper(wrapped))  # type: ignore[arg-type]
    assert fingerprint([wrapped, call]) == fingerprint([one, call])


def test_stand_ins_that_lead_back_to_themselves() -> None:
    class Ring:
        def __init__(self, name: str) -> None:
            self.name = name

        def __graflow_fingerprint__(self) -> object:
            return {"name": self.name, "next": self}

    assert fingerprint(Ring("a")) == fingerprint(Ring("a")) != fingerprint(Ring("b"))


@pytest.mark.parametrize(
    ("source", "way"),
    [
        ("LOCK = L()\ndef target(): return LOCK", "global 'LOCK' of function 'target'"),
        (
            "LOCK = L()\ndef h(): return LOCK\ndef target(): return h()",
            "global 'LOCK' of function 'h' of global 'h' of function 'target'",
        ),
        ("def target(x=L()): return x", "a default of function 'target'"),
        ("def target(*, x=L()): return x", "default of 'x' of function 'target'"),
        (
            "def m(k):\n    def f(): return k\n    return f\ntarget = m(L())",
            "free variable 'k' of function 'm.<locals>.f'",
        ),
        ("K = {'a': L()}\ndef target(): return K", "item 'a' of global 'K' of function 'target'"),
    ],
)
def test_what_has_none_is_named_with_the_way_to_it(source: str, way: str) -> None:
    program = main_program(f"from threading import Lock as L\n{source}")
    with pytest.raises(SerializationError) as caught:
        fingerprint(program["target"], what="task 'x'")
    assert str(caught.value).startswith(f"Task 'x': {way} is of type '_thread.lock', which cannot be ")
    assert "Make it inside the function" in str(caught.value)


def test_a_value_without_one_is_named_by_its_type() -> None:
    with pytest.raises(SerializationError, match=r"^Generator '.*': type 'generator' cannot be fingerprinted"):
        fingerprint(x for x in range(0))


def test_a_reduce_that_raises_is_named() -> None:
    class Bad:
        def __reduce_ex__(self, protocol: object) -> Any:
            raise RuntimeError("not today")

    with pytest.raises(SerializationError, match="not today") as caught:
        fingerprint([Bad()])
    assert isinstance(caught.value.__cause__, RuntimeError)


# --- functions that workers import --------------------------------------------------------------------------


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    with loader(tmp_path) as load:
        yield load


def test_an_importable_function_counts_by_name_and_its_own_code(load: Load) -> None:
    source = "K = 1\ndef helper(): return 1\ndef f(): return helper(), K\ndef g(): return helper(), K"
    module = load("fp_importable", source)
    before = fingerprint(module.f)
    assert before != fingerprint(module.g)
    helper_changed = load("fp_importable", source.replace("helper(): return 1", "helper(): return 2"))
    assert fingerprint(helper_changed.f) == before
    code_changed = load("fp_importable", source.replace("f(): return helper()", "f(): return 1 + helper()"))
    assert fingerprint(code_changed.f) != before
    other_name = load("fp_importable_2", source)
    assert fingerprint(other_name.f) != before


def test_defaults_of_an_importable_function_count_and_may_be_anything(load: Load) -> None:
    source = "import threading\ndef f(x=1, lock=threading.Lock()): return x"
    before = fingerprint(load("fp_defaults", source).f)
    assert fingerprint(load("fp_defaults", source).f) == before
    assert fingerprint(load("fp_defaults", source.replace("x=1", "x=2")).f) != before


def test_a_decorated_importable_function(load: Load) -> None:
    source = (
        "import dataclasses, functools, threading\n@dataclasses.dataclass(frozen=True)\nclass Policy:\n    "
        "times: int\ndef retry(policy):\n    lock = threading.Lock()\n    def deco(f):\n        "
        "@functools.wraps(f)\n        def w():\n            with lock:\n                return f(), "
        "policy\n        return w\n    return deco\n@retry(Policy(3))\ndef f(): return 1\n"
    )
    before = fingerprint(load("fp_decorated", source).f)
    assert fingerprint(load("fp_decorated", f"\n\n{source}").f) == before
    assert fingerprint(load("fp_decorated", source.replace("Policy(3)", "Policy(4)")).f) != before
    assert fingerprint(load("fp_decorated", source.replace("f(): return 1", "f(): return 2")).f) != before


def test_what_main_takes_from_modules_counts_by_name_and_own_code(load: Load) -> None:
    library = "class C:\n    def m(self): return 1\ndef deep(): return 1\ndef helper(): return deep()"
    program = "from fp_library import helper, C\ndef target(): return helper(), C"
    load("fp_library", library)
    before = target_of(program)
    load(
        "fp_library",
        library.replace("deep(): return 1", "deep(): return 2").replace("m(self): return 1", "m(self): return 2"),
    )
    assert target_of(program) == before
    load("fp_library", library.replace("return deep()", "return -deep()"))
    assert target_of(program) != before


def test_a_module_registered_by_value_counts_whole(load: Load) -> None:
    library = "K = 1\ndef helper(): return K"
    by_function = "from fp_by_value import helper\ndef target(): return helper()"
    by_module = "import fp_by_value\ndef target(): return fp_by_value.helper()"
    load("fp_by_value", library)
    register_by_value("fp_by_value")
    try:
        before = target_of(by_function), target_of(by_module)
        load("fp_by_value", f"# moved\n{library}")
        assert (target_of(by_function), target_of(by_module)) == before
        load("fp_by_value", library.replace("K = 1", "K = 2"))
        after = target_of(by_function), target_of(by_module)
    finally:
        unregister_by_value("fp_by_value")
    assert after[0] != before[0]
    assert after[1] != before[1]
