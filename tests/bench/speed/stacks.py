"""What py-spy's collapsed stacks say: which functions the time was spent in. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass
class Profile:
    """Samples of one kind of process: by the function that ran, and by each that was on the stack."""

    samples: int = 0
    own: Counter[str] = field(default_factory=Counter)
    total: Counter[str] = field(default_factory=Counter)

    def add(self, functions: list[str], count: int) -> None:
        self.samples += count
        self.own[functions[-1]] += count
        self.total.update(dict.fromkeys(functions, count))


def profiles(lines: Iterable[str], kind: Callable[[str], str]) -> dict[str, Profile]:
    """By kind of process.

    Args:
        lines: ``frame;frame;frame COUNT``, the outermost first, as ``py-spy record --format raw`` writes them.
        kind: of a process, by its frame (``process PID:"COMMAND"``), which follows those of the processes that started
            it; of the empty text where there is none.
    """
    found: dict[str, Profile] = {}
    for line in lines:
        stack, _, count = line.strip().rpartition(" ")
        if not stack:
            continue
        frames = stack.split(";")
        process = [frame for frame in frames if frame.startswith("process ")]
        functions = [_function(frame) for frame in frames if not frame.startswith(("process ", "thread "))]
        if functions:
            found.setdefault(kind(process[-1] if process else ""), Profile()).add(functions, int(count))
    return found


def _function(frame: str) -> str:
    """``name (path/to/file.py:12)`` without the line."""
    name, _, place = frame.partition(" (")
    return f"{name} ({place.rstrip(')').rpartition(':')[0] or place.rstrip(')')})"
