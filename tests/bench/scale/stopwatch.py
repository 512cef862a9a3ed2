"""Times and peak memory of stages, and how both grow."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Lap:
    """One stage.

    Attributes:
        seconds: on the wall. ``cpu``: of processors, this process's and the server's together.
        peak: the bytes by which this process grew meanwhile, at the most.
    """

    stage: str
    seconds: float
    cpu: float
    peak: int
    error: str = ""


@dataclass
class Stopwatch:
    """Measures stages that come one after the other, in this process. ``server``: the CPU seconds of the server."""

    server: Callable[[], float] = float
    laps: list[Lap] = field(default_factory=list)

    def time(self, stage: str, work: Callable[[], T]) -> T | None:
        """What ``work`` returns; None if it failed, which is noted. Only an end of the process stops what follows."""
        before, cpu, began, error, made = _begin(), self._cpu(), time.perf_counter(), "", None
        try:
            made = work()
        except (Exception, RecursionError) as failed:  # noqa: BLE001  what fails at a size is a finding
            error = f"{type(failed).__name__}: {str(failed)[:120]}"
        seconds, peak = time.perf_counter() - began, max(0, _memory("VmHWM") - before)
        self.laps.append(Lap(stage, seconds, self._cpu() - cpu, peak, error))
        return made

    def _cpu(self) -> float:
        return time.process_time() + self.server()

    def told(self) -> list[dict[str, Any]]:
        return [asdict(lap) for lap in self.laps]


def _begin() -> int:
    """Resets the peak that Linux keeps for this process, and says what it has now."""
    with suppress(OSError):
        _CLEAR.write_text("5")
    return _memory("VmRSS")


def _memory(name: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def exponent(sizes: Sequence[float], values: Sequence[float], least: float) -> float | None:
    """The slope of a line through the logarithms: 1 is linear. Values below ``least`` are noise, and left out.

    None if fewer than two are left.
    """
    points = [(math.log(size), math.log(value)) for size, value in zip(sizes, values, strict=True) if value >= least]
    if len(points) < 2:
        return None
    mean_x, mean_y = (sum(axis) / len(points) for axis in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else None
