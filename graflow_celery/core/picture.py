"""A graph as a small picture: SVG that needs nothing from elsewhere, for a notebook or a page.

Only what is in no group has a box of its own; a group's box says how many members it has. Every text is escaped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from graflow_celery.core.plan import NodeSpec, Plan

WIDTH, HEIGHT = 150, 40
GAP_X, GAP_Y, MARGIN = 44, 16, 8
LETTERS = 20
#: More boxes than that are no picture any more.
MOST = 120
#: A colour that reads on white and on black, by state.
COLOURS: Mapping[str, str] = {
    "succeeded": "#2e8b57",
    "failed": "#d1434b",
    "running": "#2f7fd1",
    "queued": "#2f7fd1",
    "waiting": "#8a8a8a",
    "asking": "#b8860b",
    "skipped": "#b8860b",
    "unfinished": "#b8860b",
}
PLAIN = "#8a8a8a"


@dataclass(frozen=True)
class Standing:
    """How a node stands, and what its box says below its name."""

    state: str = ""
    note: str = ""


def to_svg(plan: Plan, standings: Mapping[str, Standing] | None = None) -> str:
    """The nodes that are in no group, from left to right, each after what it waits for, in the colours of their states.

    Of a graph with more than 120 of them: a line that says how many there are.
    """
    told = standings or {}
    boxes = [node for node in plan.nodes.values() if node.group is None and node.owner is None]
    if len(boxes) > MOST:
        return f"<p>{len(boxes):,} nodes: too many for a picture.</p>"
    places, bends, height = _places(plan, boxes)
    width = max((x for x, _ in places.values()), default=0) + WIDTH + MARGIN
    title = f"Graph of {escape(plan.name)}"
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{title}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
    )
    parts = [opening]
    for node in boxes:
        here = places[node.id]
        parts += [_edge(here, bends.get((node.id, name), ()), places[name]) for name in node.successors]
        parts += [_loop(here, places[name]) for name in node.loops]
    parts += [_box(node, places[node.id], told.get(node.id, Standing())) for node in boxes]
    return "".join([*parts, "</svg>"])


Point = tuple[int, int]


def _places(plan: Plan, boxes: Sequence[NodeSpec]) -> tuple[dict[str, Point], dict[tuple[str, str], list[Point]], int]:
    """The left upper corner of each box; where edges pass columns on their way, on the left; and the whole height.

    There is a column for each length of the longest way that leads there.
    """
    columns = _columns(plan, boxes)
    below: dict[int, int] = {}
    places: dict[str, Point] = {}
    bends: dict[tuple[str, str], list[Point]] = {}
    for node in boxes:
        column = columns[node.id]
        y = below.get(column, MARGIN)
        places[node.id] = (_left(column), y)
        below[column] = y + HEIGHT + GAP_Y
    for node in boxes:
        for name in node.successors:
            for column in range(columns[node.id] + 1, columns[name]):
                y = below.get(column, MARGIN)
                bends.setdefault((node.id, name), []).append((_left(column), y))
                below[column] = y + GAP_Y
    return places, bends, max(below.values(), default=0) - GAP_Y + MARGIN


def _columns(plan: Plan, boxes: Sequence[NodeSpec]) -> dict[str, int]:
    columns = dict.fromkeys((node.id for node in boxes), 0)
    waits = {node.id: node.needs for node in boxes}
    ready = deque([plan.start])
    while ready:
        name = ready.popleft()
        for successor in plan[name].successors:
            columns[successor] = max(columns[successor], columns[name] + 1)
            waits[successor] -= 1
            if waits[successor] == 0:
                ready.append(successor)
    return columns


def _left(column: int) -> int:
    return MARGIN + column * (WIDTH + GAP_X)


def _edge(source: Point, bends: Sequence[Point], target: Point) -> str:
    """A line with a small head, around the boxes between."""
    x, y = source[0] + WIDTH, source[1] + HEIGHT // 2
    path = f"M{x} {y}"
    for left, height in [*bends, (target[0], target[1] + HEIGHT // 2)]:
        middle = (x + left) // 2
        path += f"C{middle} {y} {middle} {height} {left} {height}"
        x, y = left + WIDTH, height
        path += f"H{x}" if (left, height) in bends else ""
    x = target[0]
    return f'<path d="{path}M{x - 6} {y - 4}L{x} {y}L{x - 6} {y + 4}" {_line(PLAIN)}/>'


def _loop(source: Point, target: Point) -> str:
    """The edge that closes a cycle: dashed, below the boxes."""
    low = max(source[1], target[1]) + HEIGHT + GAP_Y // 2
    x1, x2, y = source[0] + WIDTH // 2, target[0] + WIDTH // 2 + 8, target[1] + HEIGHT
    path = f"M{x1} {source[1] + HEIGHT}V{low}H{x2}V{y}M{x2 - 4} {y + 6}L{x2} {y}L{x2 + 4} {y + 6}"
    return f'<path d="{path}" {_line(PLAIN)} stroke-dasharray="4 3"/>'


def _box(node: NodeSpec, place: tuple[int, int], standing: Standing) -> str:
    x, y = place
    colour = COLOURS.get(standing.state, PLAIN)
    note = standing.note or ("a member for each item" if node.map else f"{len(node.exits):,} members")
    note = note if node.is_group or standing.note else ""
    double = f'<rect x="{x + 3}" y="{y + 3}" width="{WIDTH - 6}" height="{HEIGHT - 6}" rx="4" {_line(colour)}/>'
    middle = x + WIDTH // 2
    lines = f'<text x="{middle}" y="{y + (18 if note else 24)}" {_TEXT}>{escape(_short(node.id))}</text>'
    if note:
        lines += f'<text x="{middle}" y="{y + 32}" font-size="10" {_TEXT}>{escape(_short(note, 26))}</text>'
    hint = escape(f"{node.id}: {standing.state}" if standing.state else node.id)
    outer = (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="6" {_line(colour, 2 if standing.state else 1)}/>'
    )
    return f"<g><title>{hint}</title>{outer}{double if node.is_group else ''}{lines}</g>"


_TEXT = 'text-anchor="middle" fill="currentColor"'


def _line(colour: str, width: int = 1) -> str:
    return f'fill="none" stroke="{colour}" stroke-width="{width}"'


def _short(text: str, letters: int = LETTERS) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"
