"""Activation keys: one pass through a node, as text.

A node may run in several passes of one run: a cycle re-enters it, a jump (``next_task``) goes back to it. Each pass has
records, joins and messages of its own, so its key names the node and, unless it is the first, the pass.

| key           | stands for                                                                        |
| ------------- | --------------------------------------------------------------------------------- |
| `clean`       | the first pass through node 'clean'                                               |
| `clean@1~4`   | the pass that was entered at the plan's node number 4, the first one on its path  |
| `clean@1~4.0` | the same, inside of a parallel group that was opened in that pass                 |
| `score[17]`   | the member for item 17 of the mapped task 'score'                                 |

The part after ``@`` has one pass for each scope that the node is in, the outermost first. Pure text: whoever has a key
and the plan knows everything that the Scheduler needs.
"""

from __future__ import annotations

import re

FIRST = "0"
_SUFFIX = re.compile(r"@([0-9a-z~]+(?:\.[0-9a-z~]+)*)\Z")
_ITEM = re.compile(r"(.+)\[(\d+)\]\Z", re.DOTALL)
#: What a task id may not end in, because keys do.
RESERVED = re.compile(r"(@[0-9a-z~.]+|\[\d+\])\Z")

Passes = tuple[str, ...]


def split(key: str) -> tuple[str, Passes]:
    """The node's id and its passes; no passes stand for first ones all through."""
    if "@" not in key:
        return key, ()
    found = _SUFFIX.search(key)
    return (key, ()) if found is None else (key[: found.start()], tuple(found[1].split(".")))


def node_of(key: str) -> str:
    """The id under which the result of an activation is kept."""
    return split(key)[0]


def key_of(node: str, passes: Passes) -> str:
    for item in passes:
        if item != FIRST:
            return f"{node}@{'.'.join(passes)}"
    return node


def item_of(node: str) -> tuple[str, int] | None:
    """The mapped task and the item's number, for the id of a member of one."""
    found = _ITEM.match(node) if node.endswith("]") else None
    return None if found is None else (found[1], int(found[2]))


def following(current: str, entry: int) -> str:
    """The pass that a jump to the plan's node number ``entry`` begins."""
    number, _, _ = current.partition("~")
    return f"{int(number) + 1 if number.isdigit() else 1}~{entry}"


def entry_of(current: str) -> int | None:
    """The number of the node at which a pass was entered; None if it was entered at its scope's beginning."""
    _, mark, entry = current.partition("~")
    return int(entry) if mark else None
