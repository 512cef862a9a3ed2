"""Fingerprints: 32 characters that are the same wherever and whenever the same thing is meant.

A function counts by what it does: its code, defaults, the values of its free variables, and the globals that
it names as far as they travel with it. Never by the bytes of a pickle, which differ from process to process.
How each kind of object is described is in :mod:`graflow_celery.codec.description`; this module walks from one
to the next.
"""

from __future__ import annotations

from graflow_celery.codec.description import Node, atom, describe, stand_in
from graflow_celery.codec.location import type_name
from graflow_celery.codec.objectgraph import Token, Vertex, hashed, vertex_digests
from graflow_celery.errors import SerializationError

_FORMAT = "graflow fingerprint 1"
_MOST_OBJECTS = 1_000_000


def fingerprint(obj: object, *, what: str | None = None) -> str:
    """32 hexadecimal characters, the same in every process and run of the same source.

    The minor version of Python has to be the same, too, where functions are concerned.
    The order of dicts and sets does not matter, nor do comments, lines and files; code, defaults, values of
    free variables and of by-value globals do. Importable functions count by name and their own code, other
    importable objects by name. An object whose type has a method ``__graflow_fingerprint__()`` counts as what
    that returns. ``what`` names ``obj`` in errors: ``"task 'x'"``.

    Raises:
        SerializationError: ``obj`` leads to an object with no describable content (a lock, a file); the
            message says by which way.
    """
    token = atom(obj)
    if token is None:
        token = _Walk(obj, what or _named(obj)).digest()
    return hashed(_FORMAT, token).hex()


class _Walk:
    """One walk over all that an object leads to. Objects are known by identity and kept alive meanwhile."""

    def __init__(self, root: object, what: str) -> None:
        self._root = root
        self._what = what
        self._numbers: dict[tuple[int, bool], int] = {}
        self._met: list[tuple[object, bool]] = []
        self._from: list[int] = []
        self._stand_ins: dict[int, tuple[object, object]] = {}
        self._nodes: list[Node] = []

    def digest(self) -> bytes:
        root = self._token(self._root, lenient=False, origin=-1)
        if isinstance(root, bytes):
            return root
        vertices: list[Vertex] = []
        while len(vertices) < len(self._met):
            number = len(vertices)
            obj, lenient = self._met[number]
            node = self._describe(number, obj, lenient)
            self._nodes.append(node)
            lenient = lenient or node.lenient
            children = [self._token(child, lenient, number) for child in node.children]
            vertices.append(Vertex(node.label, children, node.ordered))
        return b"#" + vertex_digests(vertices)[root]

    def _token(self, obj: object, lenient: bool, origin: int) -> Token:
        obj = self._meant(obj)
        token = atom(obj)
        if token is not None:
            return token
        key = (id(obj), lenient)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self._met)
            self._met.append((obj, lenient))
            self._from.append(origin)
        return number

    def _meant(self, obj: object) -> object:
        """``obj``, or what its ``__graflow_fingerprint__`` puts in its place; asked once for each object."""
        given = obj
        if id(given) in self._stand_ins:
            return self._stand_ins[id(given)][1]
        asked: list[object] = []
        while not any(obj is one for one in asked) and (replacement := stand_in(obj)) is not None:
            asked.append(obj)
            obj = replacement.obj
        if obj is not given:
            self._stand_ins[id(given)] = (given, obj)
        return obj

    def _describe(self, number: int, obj: object, lenient: bool) -> Node:
        if number >= _MOST_OBJECTS:
            raise SerializationError(
                self._what,
                f"it leads to more than {_MOST_OBJECTS:,} objects. Give the class of what holds them a "
                "method __graflow_fingerprint__() that returns less, such as a version or a digest.",
            )
        try:
            return describe(obj, lenient)
        except SerializationError as error:
            way = self._way_to(number)
            subject = f"{way} is of type '{type_name(obj)}', which" if way else f"type '{type_name(obj)}'"
            raise SerializationError(
                self._what,
                f"{subject} cannot be fingerprinted or sent ({error.detail}). Make it inside the function "
                "that uses it, or give its class __graflow_fingerprint__() and __reduce__().",
            ) from error.__cause__

    def _way_to(self, number: int) -> str:
        """``global 'LOCK' of function 'helper' of global 'helper'``, the nearest first."""
        roles: list[str] = []
        number = self._from[number]
        while number >= 0:
            if self._nodes[number].role:
                roles.append(self._nodes[number].role)
            number = self._from[number]
        return " of ".join(roles)


def _named(obj: object) -> str:
    name = getattr(obj, "__qualname__", None)
    return f"{type(obj).__name__} '{name}'" if isinstance(name, str) else f"value of type '{type_name(obj)}'"
