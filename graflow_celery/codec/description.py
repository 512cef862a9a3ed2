"""How each kind of object is described for its fingerprint: a label, and the objects that it consists of."""

from __future__ import annotations

import copyreg
import dataclasses
import enum
import functools
import types
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from graflow_celery.codec.bytecode import describe_code, global_names
from graflow_celery.codec.location import (
    HEAP_TYPE,
    Location,
    is_cached_function,
    is_importable,
    locate_in_process,
    travels_by_value,
    type_name,
)
from graflow_celery.codec.objectgraph import hashed, join
from graflow_celery.errors import SerializationError

_LONG = 64
_REDUCE_PROTOCOL = 4  # 5 would hand out buffers

#: Attributes of modules and classes that say where they are, or that Python derives or fills in later.
_MODULE_EXTRAS = frozenset(
    {
        "__builtins__", "__cached__", "__doc__", "__file__", "__loader__", "__name__", "__package__",
        "__path__", "__spec__",
    }
)  # fmt: skip
_CLASS_EXTRAS = frozenset(
    {
        "__abstractmethods__", "__annotations_cache__", "__dict__", "__doc__", "__firstlineno__",
        "__module__", "__static_attributes__", "__weakref__", "_abc_impl",
    }
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Node:
    """What an object is without its parts, and the parts.

    ``lenient``: what has no description among the parts, and among theirs, counts by its type. ``role`` names
    the place of the parts in error messages.
    """

    label: bytes
    children: Sequence[object] = ()
    ordered: bool = True
    lenient: bool = False
    role: str = ""


class StandIn(NamedTuple):
    obj: object


def stand_in(obj: object) -> StandIn | None:
    """What the object's ``__graflow_fingerprint__`` returns, if it has one."""
    offer = getattr(type(obj), "__graflow_fingerprint__", None)
    return None if offer is None else StandIn(offer(obj))


def atom(obj: object) -> bytes | None:
    """The spelling of a value without parts; None for anything else. Subclasses are something else."""
    spell = _ATOMS.get(type(obj))
    if spell is None:
        return None
    token = spell(obj)
    return token if len(token) <= _LONG else b"~" + token[:1] + hashed(token)


_ATOMS: Mapping[type, Callable[[Any], bytes]] = {
    type(None): lambda value: b"N",
    bool: lambda value: b"T" if value else b"F",
    int: lambda value: b"i%x" % value,
    float: lambda value: b"f" + repr(value).encode(),
    complex: lambda value: b"c" + repr(value).encode(),
    str: lambda value: b"s" + value.encode("utf-8", "surrogatepass"),
    bytes: lambda value: b"b" + value,
    bytearray: lambda value: b"B" + bytes(value),
    type(Ellipsis): lambda value: b"E",
    type(NotImplemented): lambda value: b"I",
}


def describe(obj: object, lenient: bool = False) -> Node:
    """The description of an object that is no atom.

    Raises:
        SerializationError: it has none; not if ``lenient``.
    """
    if isinstance(obj, Node):
        return obj
    known = _KINDS.get(type(obj))
    if known is not None:
        return known(obj, lenient)
    location = locate_in_process(obj)
    if location is not None:
        return _by_name(location)
    for kind, description in _FAMILIES:
        if isinstance(obj, kind):
            return description(obj, lenient)
    if is_cached_function(obj):
        return _cached_function(obj)
    if not lenient:
        return _reduced(obj)
    if isinstance(obj, functools.partial):
        return Node(b"partial", (obj.func, obj.args, obj.keywords))
    parameters = getattr(type(obj), "__dataclass_params__", None)
    if dataclasses.is_dataclass(obj) and getattr(parameters, "frozen", False):
        fields = {field.name: getattr(obj, field.name, None) for field in dataclasses.fields(obj)}
        return Node(b"dataclass", (type(obj), fields))
    return Node(join("opaque", type_name(obj)))


def _by_name(location: Location) -> Node:
    return Node(join("named", location.module, location.qualname))


# --- containers ---------------------------------------------------------------------------------------------


def _mapping(obj: Any, lenient: bool) -> Node:
    return Node(b"dict", _pairs(obj.items()), ordered=False)


def _set(obj: Any, lenient: bool) -> Node:
    return Node(b"set" if isinstance(obj, set) else b"frozenset", tuple(obj), ordered=False)


def _set_subclass(obj: Any, lenient: bool) -> Node:
    members = Node(b"members", tuple(obj), ordered=False)
    return Node(b"set subclass", (type(obj), members, getattr(obj, "__dict__", None)))


def _pairs(items: Iterable[tuple[object, object]]) -> list[Node]:
    return [Node(b"pair", (key, value), role=f"item '{key}'" if type(key) is str else "") for key, value in items]


def _named_pairs(kind: str, items: Iterable[tuple[str, object]]) -> list[Node]:
    """Sorted by name, so that they are in order."""
    by_name = sorted(items, key=lambda item: item[0])
    return [Node(join(kind, name), (value,), role=f"{kind} '{name}'") for name, value in by_name]


# --- functions ----------------------------------------------------------------------------------------------


def _code(code: types.CodeType, lenient: bool) -> Node:
    return Node(*describe_code(code))


def _cell(cell: types.CellType, lenient: bool) -> Node:
    try:
        return Node(b"cell", (cell.cell_contents,))
    except ValueError:
        return Node(b"empty cell")


def _function(func: types.FunctionType, lenient: bool) -> Node:
    own: list[object] = [
        func.__code__,
        Node(b"defaults", func.__defaults__ or (), role="a default"),
        Node(b"keyword defaults", _named_pairs("default of", (func.__kwdefaults__ or {}).items())),
        *_closure(func),
    ]
    role = f"function '{func.__qualname__}'"
    if is_importable(func):
        own.append(getattr(func, "__wrapped__", None))
        return Node(join("function", func.__module__, func.__qualname__), own, lenient=True, role=role)
    if not lenient:
        own += _named_pairs("global", _globals_of(func))
        own += _named_pairs("attribute", func.__dict__.items())
        own.append(Node(b"annotations", _named_pairs("annotation", func.__annotations__.items())))
    return Node(join("function", func.__name__, func.__qualname__), own, role=role)


def _closure(func: types.FunctionType) -> list[Node]:
    names = func.__code__.co_freevars
    return [
        Node(join("free variable", name), (cell,), role=f"free variable '{name}'")
        for name, cell in zip(names, func.__closure__ or (), strict=True)
    ]


def _globals_of(func: types.FunctionType) -> list[tuple[str, object]]:
    """The globals that the function names and has; those that say where its file is are left out."""
    return [
        (name, func.__globals__[name])
        for name in global_names(func.__code__)
        if name in func.__globals__ and name not in _MODULE_EXTRAS
    ]


def _method(method: types.MethodType, lenient: bool) -> Node:
    location = locate_in_process(method)
    if location is not None:
        return _by_name(location)
    return Node(b"method", (method.__func__, method.__self__))


def _builtin(func: types.BuiltinFunctionType, lenient: bool) -> Node:
    location = locate_in_process(func)
    if location is not None:
        return _by_name(location)
    owner = func.__self__
    if owner is None or isinstance(owner, types.ModuleType):
        return Node(join("builtin", func.__module__ or "", func.__qualname__))
    return Node(join("builtin method", func.__name__), (owner,))


def _slot(slot: Any, lenient: bool) -> Node:
    """``str.upper``, ``object.__init__``, a field of ``__slots__``."""
    return Node(join("slot", type_name(slot), slot.__objclass__.__qualname__, slot.__name__))


def _bound_slot(slot: Any, lenient: bool) -> Node:
    return Node(join("bound slot", slot.__name__), (slot.__self__,))


def _cached_function(func: Any) -> Node:
    by_name = is_importable(func)
    label = join("cached", func.__module__, func.__qualname__) if by_name else b"cached"
    return Node(label, (func.__wrapped__, func.cache_parameters()), lenient=by_name)


def _property(prop: property, lenient: bool) -> Node:
    return Node(b"property", (prop.fget, prop.fset, prop.fdel))


def _cached_property(prop: Any, lenient: bool) -> Node:
    return Node(b"cached property", (prop.func, prop.attrname))


def _decorated_method(method: Any, lenient: bool) -> Node:
    return Node(type(method).__name__.encode(), (method.__func__,))


# --- modules and classes ------------------------------------------------------------------------------------


def _module(module: types.ModuleType, lenient: bool) -> Node:
    if lenient or module.__name__ in ("__main__", "__mp_main__") or not travels_by_value(module.__name__):
        return Node(join("module", module.__name__))
    items = [(name, value) for name, value in vars(module).items() if name not in _MODULE_EXTRAS]
    return Node(b"module by value", _named_pairs("global", items), role=f"module '{module.__name__}'")


def _class(cls: type, lenient: bool) -> Node:
    if lenient or not cls.__flags__ & HEAP_TYPE or is_importable(cls):
        return Node(join("class", cls.__module__, cls.__qualname__))
    items = {name: value for name, value in vars(cls).items() if name not in _CLASS_EXTRAS}
    if not items.get("__annotations__", True):
        del items["__annotations__"]  # made when somebody looks for it
    members: list[object] = []
    if issubclass(cls, enum.Enum):
        members = [Node(join("member", name), (member._value_,)) for name, member in cls.__members__.items()]
        items = {name: value for name, value in items.items() if not _is_made_by_enum(cls, name)}
    body = Node(b"body", _named_pairs("attribute", items.items()), role=f"class '{cls.__qualname__}'")
    return Node(join("class body", cls.__name__, cls.__qualname__), (type(cls), cls.__bases__, body, *members))


def _is_made_by_enum(cls: type[enum.Enum], name: str) -> bool:
    return name in cls.__members__ or (name.startswith("_") and name.endswith("_") and not name.startswith("__"))


def _enum_member(member: enum.Enum, lenient: bool) -> Node:
    return Node(join("enum", member._name_ or ""), (type(member), member._value_))


# --- everything else ----------------------------------------------------------------------------------------


def _reduced(obj: Any) -> Node:
    """By what pickle would write: how the object is made, and its state."""
    reduce = copyreg.dispatch_table.get(type(obj))
    try:
        reduced: Any = obj.__reduce_ex__(_REDUCE_PROTOCOL) if reduce is None else reduce(obj)
        if isinstance(reduced, str):
            module = getattr(obj, "__module__", None)
            return Node(join("named", module if isinstance(module, str) else type(obj).__module__, reduced))
        make, arguments, state, items, pairs, set_state = [*reduced, *[None] * 6][:6]
        parts: list[object] = [make, arguments, state, set_state]
        parts += [tuple(items or ()), _contents(obj, pairs)]
    except Exception as error:  # boundary: __reduce_ex__ and what it returns are the user's
        raise SerializationError("value", str(error) or type(error).__name__) from error
    call = getattr(type(obj), "__call__", None)  # noqa: B004  the function itself is wanted
    if isinstance(call, types.FunctionType):
        parts.append(call)
    return Node(b"object", parts)


def _contents(obj: object, pairs: Iterable[tuple[object, object]] | None) -> Node:
    return Node(b"contents", _pairs(pairs or ()), ordered=isinstance(obj, OrderedDict))


_KINDS: Mapping[type, Callable[[Any, bool], Node]] = {
    list: lambda obj, lenient: Node(b"list", tuple(obj)),
    tuple: lambda obj, lenient: Node(b"tuple", obj),
    dict: _mapping,
    types.MappingProxyType: _mapping,
    set: _set,
    frozenset: _set,
    types.CodeType: _code,
    types.CellType: _cell,
    types.FunctionType: _function,
    types.MethodType: _method,
    types.BuiltinFunctionType: _builtin,
    types.WrapperDescriptorType: _slot,
    types.MethodDescriptorType: _slot,
    types.ClassMethodDescriptorType: _slot,
    types.GetSetDescriptorType: _slot,
    types.MemberDescriptorType: _slot,
    types.MethodWrapperType: _bound_slot,
    property: _property,
    functools.cached_property: _cached_property,
    staticmethod: _decorated_method,
    classmethod: _decorated_method,
}

_FAMILIES: Sequence[tuple[type, Callable[[Any, bool], Node]]] = (
    (type, _class),
    (types.ModuleType, _module),
    (enum.Enum, _enum_member),
    (set, _set_subclass),
    (frozenset, _set_subclass),
)
