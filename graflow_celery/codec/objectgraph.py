"""Digests of graphs of objects: cycles allowed, sharing and the order of sets without influence.

A vertex has a label and children; its digest is the hash of both, so that two vertices are alike if they look
alike all the way down. Where vertices lead back to themselves (functions that call each other), the hashes
are refined in rounds, starting from the labels, until a round tells no more of them apart (colour
refinement). So a digest depends neither on where the walk began nor on the order in which it went, and
nothing recurses, however deep the graph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

#: A child: the bytes of an atom, or the number of a vertex.
Token = bytes | int


@dataclass(frozen=True, slots=True)
class Vertex:
    """What a vertex is, apart from its children; and whether their order says something."""

    label: bytes
    children: Sequence[Token]
    ordered: bool


def join(*parts: str | bytes | int) -> bytes:
    """Parts as one byte string that no other parts give."""
    pieces: list[bytes] = []
    for part in parts:
        if isinstance(part, str):
            data = b"s" + part.encode("utf-8", "surrogatepass")
        elif isinstance(part, int):
            data = b"i%d" % part
        else:
            data = b"b" + part
        pieces += (len(data).to_bytes(8), data)
    return b"".join(pieces)


def hashed(*parts: str | bytes | int) -> bytes:
    """16 bytes that stand for the parts."""
    return hashlib.blake2b(join(*parts), digest_size=16).digest()


def vertex_digests(vertices: Sequence[Vertex]) -> list[bytes]:
    """The digest of each vertex, by number."""
    successors = [[child for child in vertex.children if isinstance(child, int)] for vertex in vertices]
    done: dict[int, bytes] = {}
    for component in _components(successors):
        if len(component) == 1 and component[0] not in successors[component[0]]:
            done[component[0]] = _digest(vertices[component[0]], done)
        else:
            done.update(_refine(component, vertices, done))
    return [done[number] for number in range(len(vertices))]


def _digest(vertex: Vertex, known: Mapping[int, bytes]) -> bytes:
    tokens = [b"#" + known[child] if isinstance(child, int) else child for child in vertex.children]
    if not vertex.ordered:
        tokens.sort()
    return hashed(vertex.label, *tokens)


def _refine(component: list[int], vertices: Sequence[Vertex], outside: Mapping[int, bytes]) -> dict[int, bytes]:
    """Digests of vertices that lead to each other. Those they lead to outside have theirs already.

    A colour tells of the vertices that are fewer steps away than there were rounds. Once a round splits no class
    any more, the set of all colours says which class leads to which, so colour and set together say it all.
    """
    needed = {
        child: outside[child]
        for number in component
        for child in vertices[number].children
        if isinstance(child, int) and child in outside
    }
    colours = {number: hashed("cycle", vertices[number].label) for number in component}
    told_apart = 0
    while len(set(colours.values())) > told_apart:
        told_apart = len(set(colours.values()))
        known = {**needed, **colours}
        colours = {number: _digest(vertices[number], known) for number in component}
    whole = hashed(*sorted(set(colours.values())))
    return {number: hashed("in cycle", colour, whole) for number, colour in colours.items()}


def _components(successors: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """The strongly connected components, each after all that it leads to (Tarjan, without recursion)."""
    order: dict[int, int] = {}
    lowest: dict[int, int] = {}
    pending: list[int] = []
    is_pending: set[int] = set()
    for start in range(len(successors)):
        if start in order:
            continue
        walk: list[tuple[int, Iterator[int]]] = [(start, iter(successors[start]))]
        while walk:
            number, rest = walk[-1]
            if number not in order:
                order[number] = lowest[number] = len(order)
                pending.append(number)
                is_pending.add(number)
            for child in rest:
                if child not in order:
                    walk.append((child, iter(successors[child])))
                    break
                if child in is_pending:
                    lowest[number] = min(lowest[number], order[child])
            else:
                walk.pop()
                if walk:
                    above = walk[-1][0]
                    lowest[above] = min(lowest[above], lowest[number])
                if lowest[number] == order[number]:
                    yield _take_until(number, pending, is_pending)


def _take_until(number: int, pending: list[int], is_pending: set[int]) -> list[int]:
    """Takes from the end of ``pending`` down to ``number``."""
    component: list[int] = []
    while not component or component[-1] != number:
        component.append(pending.pop())
    is_pending.difference_update(component)
    return component
