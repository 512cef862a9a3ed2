"""The times of all stages by size, as lines on logarithmic axes: one small SVG, with a line that is linear beside."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Any

WIDTH, HEIGHT, MARGIN, LEGEND = 560, 360, 44, 230
COLOURS = ("#2f7fd1", "#d1434b", "#2e8b57", "#b8860b", "#7d5bbe", "#d96b1f", "#1b8f9c", "#8a8a8a")
#: Stages that never took so long, in seconds, are left out.
LEAST = 0.3

Stages = Mapping[str, Mapping[int, Mapping[str, Any]]]


def drawn(everything: Mapping[str, Stages]) -> str:
    """One picture below the other, one for each shape."""
    pictures = [_picture(shape, stages, top * (HEIGHT + 20)) for top, (shape, stages) in enumerate(everything.items())]
    high, wide = len(everything) * (HEIGHT + 20), WIDTH + LEGEND
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" '
        f'font-family="sans-serif" font-size="11"><rect width="{wide}" height="{high}" fill="#fff"/>'
        f"{''.join(pictures)}</svg>"
    )


def _picture(shape: str, stages: Stages, top: int) -> str:
    lines = {
        name: points
        for name, laps in stages.items()
        if len(points := [(size, lap["seconds"]) for size, lap in laps.items() if not lap["error"]]) > 1
        and max(seconds for _, seconds in points) >= LEAST
    }
    sizes = [size for points in lines.values() for size, _ in points] or [1, 10]
    times = [max(seconds, 1e-3) for points in lines.values() for _, seconds in points] or [1e-3, 1]
    left, right = math.log10(min(sizes)), math.log10(max(sizes))
    low, high = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))

    def place(size: float, seconds: float) -> str:
        x = MARGIN + (math.log10(size) - left) / max(right - left, 1e-9) * (WIDTH - 2 * MARGIN)
        y = top + HEIGHT - MARGIN - (math.log10(max(seconds, 1e-3)) - low) / max(high - low, 1) * (HEIGHT - 2 * MARGIN)
        return f"{x:.0f},{y:.0f}"

    parts = [f'<text x="{MARGIN}" y="{top + 20}" font-size="13">{escape(shape)}: seconds by nodes</text>']
    for power in range(low, high + 1):
        beside, y = place(10**left, 10**power).split(",")
        parts.append(
            f'<path d="M{beside} {y}H{WIDTH - MARGIN}" stroke="#ddd"/><text x="4" y="{y}">{10.0**power:g}</text>'
        )
    marks = sorted(set(sizes))
    parts += [f'<text x="{place(size, 1).split(",")[0]}" y="{top + HEIGHT - 24}">{size:,}</text>' for size in marks]
    start = 10 ** (low + 0.3)
    parts.append(_line([place(10**left, start), place(10**right, start * 10 ** (right - left))], "#aaa", dashed=True))
    for index, (name, points) in enumerate(lines.items()):
        colour, at = COLOURS[index % len(COLOURS)], top + 40 + index * 15
        parts.append(_line([place(*point) for point in points], colour))
        parts.append(f'<text x="{WIDTH}" y="{at}" fill="{colour}">{escape(name)}: {points[-1][1]:.2f} s</text>')
    return "".join(parts)


def _line(points: list[str], colour: str, *, dashed: bool = False) -> str:
    dashes = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}"{dashes}/>'
