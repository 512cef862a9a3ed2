"""How long a run will still take, by what its nodes took so far or in an earlier run. A guess, and shown as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from graflow_celery.core.plan import NodeSpec

_OVER = frozenset({"succeeded", "failed", "skipped"})


class Standing(Protocol):
    """A node and how it stands."""

    id: str
    state: str

    def seconds(self, now: float) -> float: ...

    def left(self, now: float) -> float | None: ...


def left_of(
    nodes: Iterable[Standing], specs: Mapping[str, NodeSpec], earlier: Mapping[str, float], now: float
) -> float | None:
    """Seconds until the last of ``nodes`` ends, which stand in the order of the graph; None if one says nothing."""
    begins: dict[str, float] = {}
    longest = 0.0
    for node in nodes:
        own = _own(node, earlier.get(node.id), now)
        if own is None:
            return None
        end = begins.get(node.id, 0.0) + own
        longest = max(longest, end)
        for successor in specs[node.id].successors:
            begins[successor] = max(begins.get(successor, 0.0), end)
    return longest


def _own(node: Standing, earlier: float | None, now: float) -> float | None:
    """Seconds for which the node itself will still run."""
    if node.state in _OVER:
        return 0.0
    left = node.left(now)
    if left is not None:
        return left
    return None if earlier is None else max(0.0, earlier - node.seconds(now))
