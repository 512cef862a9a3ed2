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
from tests.unit.codec.fingerprint_pairs import DIFFERENT, SAME
from tests.unit.codec.modules import Load, loader, main_program

_FILES = itertools.count()


def target_of(source: str) -> str:
    return fingerprint(main_program(source, f"/somewhere/{next(_FILES)}/program.py")["target"])


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
