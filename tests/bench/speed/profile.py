"""Where our processes spend their time: processor time by kind of process, py-spy's samples, server commands."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil  # type: ignore[import-untyped]
from rich.console import Console
from rich.table import Table

from graflow_celery import WorkflowContext
from tests.bench.speed import flows
from tests.bench.speed.races import Bench, running
from tests.bench.speed.report import Row, commands_table, times
from tests.bench.speed.stacks import Profile, profiles
from tests.bench.speed.stage import Ours

RATE = 100
TOP = 20
#: A function that more of the samples than this are inside of says nothing.
EVERYWHERE = 0.9
CLIENT, MAIN, POOL, WATCH = "client", "worker's main process", "pool processes", "death watch"


@dataclass(frozen=True)
class Subject:
    """A workflow to look at, on one of our clusters."""

    name: str
    side: Ours
    wf: WorkflowContext
    units: int


def subjects(bench: Bench, only: Sequence[str]) -> list[Subject]:
    sizes, stage = bench.sizes, bench.stage
    every: dict[str, Callable[[], Subject]] = {
        "barrier": lambda: Subject("barrier", stage.ours, flows.fan_out(sizes.members), sizes.members),
        "barriers": lambda: Subject(
            "barriers", stage.ours, flows.barriers(sizes.barriers, sizes.width), sizes.barriers
        ),
        "chain": lambda: Subject("chain", stage.ours, flows.line(sizes.line), sizes.line),
        "single": lambda: Subject("single", stage.single, flows.fan_out(sizes.members), sizes.members),
    }
    return [made() for name, made in every.items() if any(text in name for text in only or ["barrier"])]


def main(bench: Bench, only: Sequence[str], report: Path, console: Console) -> int:
    """Exit status 1: there is no py-spy here."""
    program = shutil.which("py-spy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if program is None:
        console.print("--profile needs py-spy: pip install py-spy")
        return 1
    report.mkdir(parents=True, exist_ok=True)
    for subject in subjects(bench, only):
        _look_at(subject, bench.rounds, program, report, console)
    return 0


def _look_at(subject: Subject, rounds: int, program: str, report: Path, console: Console) -> None:
    go = running(subject.side, subject.wf)
    go()
    before = _processor(subject.side)
    plain = [go() for _ in range(rounds)]
    used = {kind: seconds - before[kind] for kind, seconds in _processor(subject.side).items()}
    console.print(f"{subject.name}: {times(plain)} a round; processor time of a round, in ms:")
    console.print(", ".join(f"{kind} {1000 * seconds / rounds:.0f}" for kind, seconds in used.items()))
    console.print(commands_table(Row(subject.name, subject.name, "", None, units=subject.units, ours=plain)))
    main_process = subject.side.processes()[0]
    for name, pid in (("client", os.getpid()), ("workers", main_process)):  # By turns: each slows what it looks at.
        file = report / f"{subject.name}-{name}.txt"
        with _recording(program, pid, file, children=name == "workers"):
            recorded = [go() for _ in range(rounds)]
        console.print(f"{subject.name}, the {name} recorded into {file}: {times(recorded)} a round")
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        for kind, found in profiles(lines, partial(_kind, main_process)).items():
            console.print(_table(f"{subject.name}: {kind}", found))


def _kind(main_process: int, frame: str) -> str:
    if not frame:
        return CLIENT
    if frame.startswith(f"process {main_process}:"):
        return MAIN
    return WATCH if "vigil" in frame else POOL


def _processor(side: Ours) -> dict[str, float]:
    """Processor seconds of each kind of process so far, and the server's."""
    main_process, *others = side.processes()
    cpu = side.server.info("cpu")
    return {
        CLIENT: _seconds([os.getpid()]),
        MAIN: _seconds([main_process]),
        f"{POOL} and {WATCH}": _seconds(others),
        "server": float(cpu["used_cpu_sys"]) + float(cpu["used_cpu_user"]),
    }


def _seconds(pids: Sequence[int]) -> float:
    used = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(sum(item.user + item.system for item in used))


@contextmanager
def _recording(program: str, pid: int, file: Path, *, children: bool) -> Iterator[None]:
    """Samples a process, and those that it started too, for the time of the block."""
    command = [program, "record", "--pid", str(pid), "--nonblocking", "--format", "raw", "--rate", str(RATE)]
    command += ["--duration", "unlimited", "--output", str(file), *(["--subprocesses"] if children else [])]
    file.unlink(missing_ok=True)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)  # It writes what it has.


def _table(title: str, found: Profile) -> Table:
    table = Table(title=f"{title}: {found.samples / RATE:.2f} s on a processor")
    for heading in ("% own", "function", "% with what it calls", "function"):
        table.add_column(heading, justify="right" if heading.startswith("%") else "left")
    inside = [(name, count) for name, count in found.total.most_common() if count < EVERYWHERE * found.samples]
    pairs = zip(found.own.most_common(TOP), inside[:TOP], strict=False)
    for (own, own_count), (total, total_count) in pairs:
        shares = [f"{100 * count / found.samples:.1f}" for count in (own_count, total_count)]
        table.add_row(shares[0], own, shares[1], total)
    return table
