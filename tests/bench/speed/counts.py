"""What a piece of work took, and what the side's server was asked for meanwhile, by the server's own statistics."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.bench.speed.work import nap

Work = Callable[[], object]
#: Seconds before a round, for what the round before left behind.
PAUSE = 0.1
#: Seconds from the begin of an idle period to its first look, when all that begins it is over.
SETTLED = 0.5


@dataclass(frozen=True)
class Counts:
    """One round.

    ``commands`` are those that the server executed, also inside of scripts; ``requests`` the times that it read from a
    connection, which are about the round trips; bytes are those of the network.
    """

    seconds: float
    commands: float = 0.0
    requests: float = 0.0
    bytes_in: float = 0.0
    bytes_out: float = 0.0
    by_command: Mapping[str, float] = field(default_factory=dict)

    @property
    def bytes(self) -> float:
        return self.bytes_in + self.bytes_out

    def less(self, idle: Counts) -> Counts:
        """Without what an idle period of the same length is counted with."""
        share = self.seconds / idle.seconds
        return Counts(
            self.seconds,
            self.commands - share * idle.commands,
            self.requests - share * idle.requests,
            self.bytes_in - share * idle.bytes_in,
            self.bytes_out - share * idle.bytes_out,
            {name: calls - share * idle.by_command.get(name, 0.0) for name, calls in self.by_command.items()},
        )


def measure(work: Work, server: Any) -> Counts:
    """Does the work once. The look at the statistics is in neither the time nor the counts."""
    gc.collect()
    nap(PAUSE)
    before, began = _statistics(server), time.perf_counter()
    work()
    return _difference(before, server, time.perf_counter() - began)


def measure_idle(rest: Callable[[float], object], seconds: float, server: Any) -> Counts:
    """A period in which a client waits for a task that runs for long, and nothing else happens.

    Args:
        rest: does that for so many seconds.
        seconds: how long the period is.
        server: whose statistics are looked at.
    """
    resting = threading.Thread(target=rest, args=(seconds + 2 * SETTLED,))
    resting.start()
    nap(SETTLED)
    before, began = _statistics(server), time.perf_counter()
    nap(seconds)
    found = _difference(before, server, time.perf_counter() - began)
    resting.join()
    return found


def _statistics(server: Any) -> Counts:
    found = server.info("stats", "commandstats")
    calls = {
        name.removeprefix("cmdstat_"): float(entry["calls"])
        for name, entry in found.items()
        if name.startswith("cmdstat_")
    }
    return Counts(
        0.0,
        found["total_commands_processed"],
        found["total_reads_processed"],
        found["total_net_input_bytes"],
        found["total_net_output_bytes"],
        calls,
    )


def _difference(before: Counts, server: Any, seconds: float) -> Counts:
    after = _statistics(server)
    calls = {name: count - before.by_command.get(name, 0.0) for name, count in after.by_command.items()}
    calls["info"] = calls.get("info", 1.0) - 1
    return Counts(
        seconds,
        after.commands - before.commands - 1,
        after.requests - before.requests - 1,
        after.bytes_in - before.bytes_in,
        after.bytes_out - before.bytes_out,
        {name: count for name, count in calls.items() if count},
    )
