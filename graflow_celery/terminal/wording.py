"""How progress is put into words: the same in a log, on a screen and in a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from graflow_celery.terminal.progress import NodeProgress


def counted(count: int, one: str, many: str = "") -> str:
    """``1 task``, ``2 tasks``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def counts(group: NodeProgress) -> str:
    """``612/700, 3 failed``."""
    parts = [f"{group.done}/{group.members}"]
    parts += [f"{group.failed} failed"] if group.failed else []
    parts += [f"{group.skipped} not reached"] if group.skipped else []
    parts += [counted(group.retried, "retry", "retries")] if group.retried else []
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """``210 ms``, ``12.4 s``, ``1:05``, ``2:03:09``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rate(per_second: float) -> str:
    """``51/s``, ``7.5/s``, ``12/min``."""
    if per_second >= 10:
        return f"{per_second:,.0f}/s"
    return f"{per_second:.1f}/s" if per_second >= 0.5 else f"{per_second * 60:.1f}/min"


def size(count: int) -> str:
    """``310 B``, ``4.2 KB``, ``1.3 MB``."""
    amount = float(count)
    for unit in ("B", "KB", "MB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} GB"


def first_line(text: str, longest: int = 200) -> str:
    """The first line of a text, cut if it is long."""
    line = next(iter(text.splitlines()), "")
    return line if len(line) <= longest else line[: longest - 3] + "..."


def place(worker: str) -> str:
    """`` on NAME``; nothing for what runs in this process."""
    return f" on {worker}" if worker not in ("", "local") else ""


def missing(queues: Sequence[str]) -> str:
    """That no worker consumes some queues, and what to do."""
    names = ", ".join(f"'{queue}'" for queue in queues)
    return f"waiting: no live worker consumes {names}. Start one: graflow-celery worker -Q {','.join(queues)}"


def shortened(filename: str) -> str:
    """The path as a person in this directory would write it."""
    path = Path(filename)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else filename
