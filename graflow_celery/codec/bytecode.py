"""What a code object says, without where it stands in which file."""

from __future__ import annotations

import dis
import sys
from functools import lru_cache
from types import CodeType

from graflow_celery.codec.objectgraph import join

#: Names in a class body that the compiler fills with a line number and with names in the order of a set.
_POSITION_NAMES = frozenset({"__firstlineno__", "__static_attributes__"})


@lru_cache(maxsize=1024)
def global_names(code: CodeType) -> tuple[str, ...]:
    """The names that this code, or code nested in it, looks up among the globals; sorted."""
    names = {
        step.argval
        for step in dis.get_instructions(code)
        if isinstance(step.argval, str) and ("GLOBAL" in step.opname or step.opname == "LOAD_NAME")
    }
    for const in code.co_consts:
        if isinstance(const, CodeType):
            names.update(global_names(const))
    return tuple(sorted(names))


@lru_cache(maxsize=1024)
def describe_code(code: CodeType) -> tuple[bytes, tuple[object, ...]]:
    """A label and the constants, equal for code that is the same but for lines and files."""
    if _POSITION_NAMES.isdisjoint(code.co_names):
        steps, consts = code.co_code, code.co_consts
    else:
        steps, consts = _without_positions(code)
    label = join(
        "code",
        *sys.version_info[:2],  # bytecode of one version means something else in another
        code.co_name,
        code.co_argcount,
        code.co_posonlyargcount,
        code.co_kwonlyargcount,
        code.co_flags,
        steps,
        code.co_exceptiontable,
        join(*code.co_names),
        join(*code.co_varnames),
        join(*code.co_cellvars),
        join(*code.co_freevars),
    )
    return label, consts


def _without_positions(code: CodeType) -> tuple[bytes, tuple[object, ...]]:
    """The steps of a class body and the constants as they are used, without ``_POSITION_NAMES``."""
    steps: list[bytes] = []
    consts: list[object] = []
    loaded: list[bool] = []
    for step in dis.get_instructions(code):
        if step.opname == "EXTENDED_ARG":
            continue
        if step.opname == "STORE_NAME" and step.argval in _POSITION_NAMES:
            steps.pop()
            if loaded.pop():
                consts.pop()
            continue
        loaded.append(step.opcode in dis.hasconst)
        if loaded[-1]:
            consts.append(step.argval)
        steps.append(join(step.opname, 0 if loaded[-1] or step.arg is None else step.arg))
    return join(*steps), tuple(consts)
