"""`python -m tests.bench.local` (`make bench-local`): what a node of a local run costs, in microseconds.

Ours, graflow 0.2.0 and plain calls of the same functions take turns; the tables have medians, and the median of the
ratios of neighbouring rounds. Workflows are written before the clock starts; a run's own preparation, checking and
lowering the graph, counts. All tasks are no-ops, so that what is measured is overhead and nothing else.

`--graflow PYTHON` names the interpreter that has graflow 0.2.0; without it the columns of graflow stay empty.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from graflow_celery import WorkflowContext, chain, task, workflow
from graflow_celery.core.expr import Executable, ParallelGroup

#: What is run, how many of it, and how many nodes that makes.
CASES = (
    ("chain", 1_000, 1_000),
    ("group", 1_000, 1_000),
    ("barriers", 50, 500),
    ("chain", 10_000, 10_000),
    ("group", 10_000, 10_000),
)


def new(name: str) -> Executable:
    @task(name)
    def noop() -> int:
        return 1

    return noop


def group(name: str, members: int) -> Executable:
    return ParallelGroup([new(f"{name}_{index}") for index in range(members)], name=name)


@functools.cache
def written(shape: str, count: int) -> WorkflowContext:
    with workflow(shape) as wf:
        if shape == "group":
            group("g", count)
        else:
            steps = [new(f"n{index}") if shape == "chain" else group(f"g{index}", 10) for index in range(count)]
            chain(*steps)
    return wf


def seconds_of(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ours(shape: str, count: int) -> float:
    wf = written(shape, count)
    return seconds_of(lambda: wf.execute(max_steps=100 * count))


def plain(shape: str, count: int) -> float:
    functions = [node.func for node in written(shape, count).graph.nodes.values() if hasattr(node, "func")]

    def call_all() -> None:
        for function in functions:
            function()

    return seconds_of(call_all)


class Peer:
    """graflow, in a process of its own."""

    def __init__(self, python: str) -> None:
        script = Path(__file__).with_name("peer_local.py")
        pipe = subprocess.PIPE
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [python, str(script)], stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment
        )

    def seconds(self, shape: str, count: int) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(shape, count, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def measure(shape: str, count: int, repeat: int, peer: Peer | None) -> tuple[list[float], list[float], list[float]]:
    """Seconds of each round of ours, graflow and plain calls; a first round of each does not count."""
    rounds = []
    for _ in range(repeat + 1):
        other = peer.seconds(shape, count) if peer is not None else 0.0
        rounds.append((ours(shape, count), other, plain(shape, count)))
    mine, others, calls = zip(*rounds[1:], strict=True)
    return list(mine), list(others), list(calls)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.local", description=__doc__)
    parser.add_argument("--graflow", metavar="PYTHON", help="the interpreter that has graflow 0.2.0")
    parser.add_argument("--repeat", type=int, default=5, help="rounds that count")
    parser.add_argument("--only", default="", help="only the cases whose name holds this text")
    chosen = parser.parse_args()
    console = Console(width=110 if not sys.stdout.isatty() else None)
    table = Table(title="microseconds a node, medians; graflow / ours over 1: ours is faster")
    for heading in ("work", "nodes", "ours", "least", "graflow 0.2.0", "plain calls", "graflow / ours"):
        table.add_column(heading, justify="left" if heading == "work" else "right")
    peer = Peer(chosen.graflow) if chosen.graflow else None
    try:
        for shape, count, nodes in CASES:
            if chosen.only not in shape:
                continue
            mine, others, calls = measure(shape, count, chosen.repeat, peer)
            shown = [f"{statistics.median(side) / nodes * 1e6:.2f}" for side in (mine, others, calls)]
            ratio = statistics.median(other / own for own, other in zip(mine, others, strict=True))
            name = f"{shape} of {count:,}" if shape != "barriers" else f"{count} {shape} of 10"
            there = (shown[1], f"{ratio:.2f}") if peer is not None else ("", "")
            table.add_row(name, f"{nodes:,}", shown[0], f"{min(mine) / nodes * 1e6:.2f}", there[0], shown[2], there[1])
    finally:
        if peer is not None:
            peer.close()
    console.print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
