"""Pairs of programs whose ``target`` has the same fingerprint, and pairs whose has not."""

from __future__ import annotations

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
    "closures over sets and dicts in another order": (
        "def make(k):\n    def f(): return k\n    return f\ntarget = make({'a': {'x', 'y', 'z'}, 'b': 1})",
        "def make(k):\n    def f(): return k\n    return f\ntarget = make({'b': 1, 'a': {'z', 'y', 'x'}})",
    ),
    "order of keyword defaults": (
        "def target(*, a=1, b=2): return a, b\ntarget.__kwdefaults__ = {'a': 1, 'b': 2}",
        "def target(*, a=1, b=2): return a, b\ntarget.__kwdefaults__ = {'b': 2, 'a': 1}",
    ),
    "lines of decorated functions": (
        (
            "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def w(): return f()\n    return w\n"
            "@deco\ndef target(): return 1"
        ),
        (
            "import functools\n# what wraps\ndef deco(f):\n\n    @functools.wraps(f)\n    def w():\n        return f()"
            "\n    return w\n\n\n@deco\n# what is wrapped\ndef target():\n    return 1"
        ),
    ),
    "state of an object with a set": (
        "class C:\n    def __init__(self, a): self.a = a\n    def __call__(self): pass\ntarget = C({'x', 'y', 'z'})",
        "class C:\n    def __init__(self, a): self.a = a\n    def __call__(self): pass\ntarget = C({'z', 'y', 'x'})",
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
    "code of a lambda": ("target = lambda x: x + 1", "target = lambda x: x + 2"),
    "default of a lambda": ("target = lambda x=1: x", "target = lambda x=2: x"),
    "a method, taken from its class": (
        "class A:\n    def f(self): return 1\ntarget = A.f",
        "class A:\n    def f(self): return 2\ntarget = A.f",
    ),
    "a class method": (
        "class A:\n    @classmethod\n    def f(cls): return 1\ntarget = A.f",
        "class A:\n    @classmethod\n    def f(cls): return 2\ntarget = A.f",
    ),
    "what super() leads to": (
        "class A:\n    def f(self): return 1\nclass B(A):\n    def f(self): return super().f()\ntarget = B().f",
        "class A:\n    def f(self): return 2\nclass B(A):\n    def f(self): return super().f()\ntarget = B().f",
    ),
    "a partial of a partial": (
        "from functools import partial\ndef f(*a): return a\ntarget = partial(partial(f, 1), 2)",
        "from functools import partial\ndef f(*a): return a\ntarget = partial(partial(f, 2), 1)",
    ),
    "a partial method": (
        (
            "import functools\nclass A:\n    def f(self, n): return n\n    g = functools.partialmethod(f, 1)\n"
            "def target(): return A().g()"
        ),
        (
            "import functools\nclass A:\n    def f(self, n): return n\n    g = functools.partialmethod(f, 2)\n"
            "def target(): return A().g()"
        ),
    ),
    "what a decorator without wraps decorates": (
        "def deco(f):\n    def w(): return f()\n    return w\n@deco\ndef target(): return 1",
        "def deco(f):\n    def w(): return f()\n    return w\n@deco\ndef target(): return 2",
    ),
    "what a class that decorates holds": (
        "class D:\n    def __init__(s, f): s.f = f\n    def __call__(s): return s.f()\n@D\ndef target(): return 1",
        "class D:\n    def __init__(s, f): s.f = f\n    def __call__(s): return s.f()\n@D\ndef target(): return 2",
    ),
    "argument of a decorator": (
        (
            "import functools\ndef deco(n):\n    def d(f):\n        @functools.wraps(f)\n        def w(): return f() +"
            " n\n        return w\n    return d\n@deco(1)\ndef target(): return 1"
        ),
        (
            "import functools\ndef deco(n):\n    def d(f):\n        @functools.wraps(f)\n        def w(): return f() +"
            " n\n        return w\n    return d\n@deco(2)\ndef target(): return 1"
        ),
    ),
    "one of two decorators": (
        (
            "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def w(): return f()\n    return w\n"
            "@deco\n@deco\ndef target(): return 1"
        ),
        (
            "import functools\ndef deco(f):\n    @functools.wraps(f)\n    def w(): return f()\n    return w\n"
            "@deco\ndef target(): return 1"
        ),
    ),
    "body of a context manager": (
        "import contextlib\n@contextlib.contextmanager\ndef target(): yield 1",
        "import contextlib\n@contextlib.contextmanager\ndef target(): yield 2",
    ),
    "free variable two functions in": (
        "def make(n):\n    def f():\n        def g(): return n\n        return g()\n    return f\ntarget = make(1)",
        "def make(n):\n    def f():\n        def g(): return n\n        return g()\n    return f\ntarget = make(2)",
    ),
    "free variable that is rebound": (
        "def make():\n    n = 10\n    def f(): return n\n    n += 1\n    return f\ntarget = make()",
        "def make():\n    n = 10\n    def f(): return n\n    n += 2\n    return f\ntarget = make()",
    ),
    "default of a nested function": (
        "def target():\n    def f(x=1): return x\n    return f()",
        "def target():\n    def f(x=2): return x\n    return f()",
    ),
    "default that is a function": ("def target(f=lambda: 1): return f()", "def target(f=lambda: 2): return f()"),
    "meta class": (
        "class M(type):\n    def f(cls): return 1\nclass target(metaclass=M): pass",
        "class M(type):\n    def f(cls): return 2\nclass target(metaclass=M): pass",
    ),
    "match statement": (
        "def target(x):\n    match x:\n        case {'a': 1}: return 1",
        "def target(x):\n    match x:\n        case {'a': 2}: return 1",
    ),
    "format of a text": ("def target(x): return f'{x:>3}'", "def target(x): return f'{x:>4}'"),
}
