"""A fingerprint is the same in fresh processes with different hash seeds, whatever the program.

Hypothesis writes programs, and two processes fingerprint all of them. The second process gets them as another
person might have written them: with comments and empty lines, sets and dicts in another order, in a file
elsewhere.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import graflow_celery.codec.fingerprint as fingerprint_module
from tests.unit.codec.fingerprint_pairs import DIFFERENT, SAME

_PROGRAMS = 400
_DRIVER = """
import json, sys
from graflow_celery.codec.fingerprint import fingerprint
out = []
for file, source in json.load(sys.stdin):
    space = {"__name__": "__main__"}
    exec(compile(source, file, "exec", dont_inherit=True), space)
    out.append(fingerprint(space["target"]))
json.dump(out, sys.stdout)
"""
#: The same for modules that are imported from a directory: as they travel by name, and whole.
_IMPORTING = """
import importlib, json, pathlib, sys
from graflow_celery.codec.callables import fingerprint_callable
from graflow_celery.codec.fingerprint import fingerprint
from graflow_celery.codec.location import sent_by_value
home = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(home))
sys.dont_write_bytecode = True
out = []
for number, (_, source) in enumerate(json.load(sys.stdin)):
    name = f"imported_{number}"
    (home / f"{name}.py").write_text(source)
    importlib.invalidate_caches()
    target = importlib.import_module(name).target
    with sent_by_value([name]):
        whole = fingerprint(target)
    out.append((fingerprint_callable(target, what="target") if callable(target) else "", whole))
json.dump(out, sys.stdout)
"""


@dataclass(frozen=True)
class Literal:
    """A value's source, in two orders of its sets and dicts."""

    one: str
    other: str


def same(text: str) -> Literal:
    return Literal(text, text)


def joined(left: str, parts: Sequence[Literal], right: str, order: Sequence[int] | None = None) -> Literal:
    others = [parts[number].other for number in order] if order else [part.other for part in parts]
    return Literal(
        left + "".join(f"{part.one}, " for part in parts) + right, left + "".join(f"{p}, " for p in others) + right
    )


@st.composite
def reordered(draw: st.DrawFn, parts: st.SearchStrategy[list[Literal]], left: str, right: str) -> Literal:
    found = draw(parts)
    return joined(left, found, right, draw(st.permutations(range(len(found)))))


names = st.sampled_from(["alpha", "beta", "gamma", "delta", "epsilon"])
atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.binary(max_size=8),
).map(lambda value: same(repr(value)))
keys = st.one_of(st.integers(), st.text(max_size=5)).map(repr)
hashable = st.one_of(atoms, st.lists(keys.map(same), min_size=1, max_size=4).map(lambda parts: joined("(", parts, ")")))


def containers(inner: st.SearchStrategy[Literal]) -> st.SearchStrategy[Literal]:
    unique_keys = st.lists(keys, max_size=4, unique=True)
    items = unique_keys.flatmap(
        lambda found: st.tuples(*(inner for _ in found)).map(
            lambda values: [
                Literal(f"{key}: {value.one}", f"{key}: {value.other}")
                for key, value in zip(found, values, strict=True)
            ]
        )
    )
    members = st.lists(keys.map(same), max_size=5, unique=True)
    return st.one_of(
        st.lists(inner, max_size=4).map(lambda parts: joined("[", parts, "]")),
        st.lists(inner, max_size=3).map(lambda parts: joined("(", parts, ")") if parts else same("()")),
        reordered(items, "{", "}"),
        reordered(members, "set([", "])"),
        reordered(members, "frozenset([", "])"),
    )


literals = st.recursive(st.one_of(atoms, hashable), containers, max_leaves=12)


@dataclass(frozen=True)
class Program:
    one: str
    other: str


#: Pairs that differ in the code of what is called, and not only in what it refers to.
OWN_CODE = {
    *("operator", "constant", "name of a global", "attribute", "name of a parameter", "kind of a parameter", "default"),
    *("positional only", "keyword default", "exception handler", "generator", "coroutine", "nested function"),
    *(
        "comprehension",
        "free variable",
        "kind of a method",
        "property",
        "argument of a partial",
        "function of a partial",
    ),
    *("object of a bound method", "code of a bound method", "state of a callable", "code of a callable"),
    *("what a decorator wraps", "what a decorator does", "cached function", "size of a cache", "code of a lambda"),
    *("a method, taken from its class", "a class method", "a partial of a partial", "argument of a decorator"),
    *("what a class that decorates holds", "one of two decorators", "body of a context manager", "match statement"),
    *("what a decorator without wraps decorates", "free variable two functions in", "default of a nested function"),
}

#: {0} and {1}: values of which the order may change. {2} and {3}: the same within a function's code, where it
#: may not.
_SHAPES = [
    "target = {0}",
    "def target(): return {2}",
    "def target(x={0}, *, y={1}): return x, y",
    "K = {0}\ndef target(): return K",
    "K = {0}\ndef helper(n): return K, target(n - 1) if n else {3}\ndef target(n): return helper(n)",
    "def make(k, other={1}):\n    def inner(): return k, other\n    return inner\ntarget = make({0})",
    (
        f"class target:\n    field = {0}\n    def method(self, x={1}): self.p, self.q, self.r = x, 1, 2\n    "
        "def other(self): return target"
    ),
    f"class C:\n    def __init__(self): self.state = {2}\n    def __call__(self): return self.state, {3}\ntarget = C()",
    (
        "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass P:\n    a: object\n    b: object = "
        f"None\ntarget = P({0}, {1})"
    ),
    "import enum\nclass E(enum.Enum):\n    A = [{0}]\n    B = 'b'\n    def f(self): return {3}\ntarget = E.A",
    "import functools\ndef f(*a, **k): return {2}\ntarget = functools.partial(f, {1}, k={0})",
    (
        f"import functools\ndef deco(f):\n    @functools.wraps(f)\n    def w(): return f(), {2}\n    return "
        f"w\n@deco\ndef target(): return {3}"
    ),
    "import functools\n@functools.cache\ndef target(n): return target(n - 1) if n else {2}",
    "def target(x): return x in {{'alpha', 'beta', 'gamma', 'delta'}}, [y for y in {2} or ()]",
    "from os.path import join\nimport json\ndef target(): return join('a', json.dumps({2}))",
    (
        f"def target():\n    class Inner:\n        x = {2}\n        def f(self): self.alpha = self.beta = "
        "self.gamma = 1\n    return Inner"
    ),
    (
        f"class A:\n    def m(self, x={0}): return x\n    @classmethod\n    def c(cls): return {3}\n    "
        "@property\n    def p(self): return 1\ntarget = A().m"
    ),
    "import typing\nclass target(typing.NamedTuple):\n    a: int = 1\n    b: object = {0}",
    (
        "import abc\nclass Shape(abc.ABC):\n    @abc.abstractmethod\n    def area(self): ...\nclass "
        f"target(Shape):\n    def area(self): return {2}"
    ),
    (
        "import typing\nT = typing.TypeVar('T')\nclass target(typing.Generic[T]):\n    def f(self, x: T) -> "
        f"list[T]: return [x, {2}]"
    ),
    "import typing\nclass target(typing.Protocol):\n    a: int\n    def f(self) -> int: return {2}",
    "class target:\n    __slots__ = ('a', 'b')\n    def f(self): return {2}",
    "class S(set): pass\nclass D(dict): pass\ntarget = S(['alpha', 'beta', 'gamma']), D(a={0}, b={1})",
]


@st.composite
def programs(draw: st.DrawFn) -> Program:
    shape = draw(st.sampled_from(_SHAPES))
    first, second = draw(literals), draw(literals)
    one = shape.format(first.one, second.one, first.one, second.one)
    other = shape.format(first.other, second.other, first.one, second.one)
    lines = [line for text in other.split("\n") for line in ("", "# what comes next", text)]
    return Program(one, "\n".join(lines[: draw(st.integers(0, 2))] + lines))


def fingerprints(programs: Sequence[tuple[str, str]], hash_seed: int) -> list[str]:
    found: list[str] = told([_DRIVER], programs, hash_seed)
    return found


def told(driver: list[str], programs: Sequence[tuple[str, str]], hash_seed: int) -> Any:
    """What a driver says of the programs in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", *driver],
        input=json.dumps(programs),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={
            "PYTHONPATH": str(Path(fingerprint_module.__file__).parents[2]),
            "PYTHONHASHSEED": str(hash_seed),
            "PATH": "",
        },
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("seeds", [(1, 2), (3, 99_999)], ids=str)
def test_the_same_in_two_processes(seeds: tuple[int, int]) -> None:
    """Processes are dear and programs are cheap: Hypothesis makes all of them, then two processes see them all."""
    found: list[Program] = []

    @settings(max_examples=_PROGRAMS, phases=(Phase.generate,), deadline=None, database=None)
    @given(programs())
    def collect(program: Program) -> None:
        found.append(program)

    collect()
    one = fingerprints([("/home/one/program.py", program.one) for program in found], seeds[0])
    other = fingerprints([("/srv/other/program.py", program.other) for program in found], seeds[1])
    different = [program for a, b, program in zip(one, other, found, strict=True) if a != b]
    assert not different, min(different, key=lambda program: len(program.one))


def test_every_shape_in_many_processes() -> None:
    """No example is left to chance: each shape once, with sets, under five hash seeds."""
    filling = "{'alpha', 'beta', 'gamma', ('delta', 1), frozenset({'x', 'y', 'z'})}"
    more = "{'k': 1, 'l': {'m', 'n', 'o'}}"
    written = [("/program.py", shape.format(filling, more, filling, more)) for shape in _SHAPES]
    found: list[Any] = [fingerprints(written, seed) for seed in (0, 1, 2, 3, 4)]
    for number, (_, source) in enumerate(written):
        assert len({run[number] for run in found}) == 1, source
    assert len(set(found[0])) == len(_SHAPES)


def test_pairs_in_two_processes() -> None:
    """What is alike is so, and what is not is not, when each of the two is written in another process."""
    pairs = [*SAME.values(), *DIFFERENT.values()]
    first = fingerprints([("/home/one/program.py", one) for one, _ in pairs], 1)
    again = fingerprints([("/srv/other/program.py", one) for one, _ in pairs], 2)
    second = fingerprints([("/srv/other/program.py", other) for _, other in pairs], 2)
    assert first == again
    names = [*SAME, *DIFFERENT]
    alike = {name for name, one, other in zip(names, first, second, strict=True) if one == other}
    assert alike == set(SAME)


def test_modules_in_two_processes(tmp_path: Path) -> None:
    """The programs as modules, imported from two places: by name they are the same in both; whole they are as told."""
    pairs = [*SAME.values(), *DIFFERENT.values()]

    def imported(which: int, seed: int, place: str) -> list[list[str]]:
        home = tmp_path / f"{place} {which}"
        home.mkdir()
        found: list[list[str]] = told([_IMPORTING, str(home)], [("", pair[which]) for pair in pairs], seed)
        return found

    first, again, second = imported(0, 1, "one"), imported(0, 2, "other"), imported(1, 2, "other")
    assert first == again
    names = [*SAME, *DIFFERENT]
    alike = {name for name, one, other in zip(names, first, second, strict=True) if one[1] == other[1]}
    assert alike == set(SAME)
    by_name = {name for name, one, other in zip(names, first, second, strict=True) if one[0] == other[0] and one[0]}
    assert not by_name & OWN_CODE, "its own code counts by name too"
