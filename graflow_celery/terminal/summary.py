"""How a run's end is summed up: its counts, its slowest tasks, its critical path, and what was lost to waiting."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.text import Text

from graflow_celery.core.activation import node_of
from graflow_celery.engine.timing import PathStep, Timing
from graflow_celery.terminal.console import pairs, say, style_of
from graflow_celery.terminal.progress import FAILED, SUCCEEDED, ProgressModel
from graflow_celery.terminal.wording import counted, duration

SLOWEST = 3
SLOW = 0.1  # seconds: a task that took less is not named as slow
PATH = 6


def tell(model: ProgressModel, run_id: str, more: Sequence[tuple[str, str | Text]] = ()) -> None:
    """Prints status, name and time of a run that has ended, and below them what there is to say of it, and ``more``."""
    status = str(model.status)
    run = f"run {run_id}  " if run_id else ""
    head = Text.assemble((status, style_of(status)), f"  {model.plan.name}  ", (run, "dim"))
    say(head.append(duration(model.seconds(0.0))))
    pairs([*facts(model), *more])


def facts(model: ProgressModel) -> list[tuple[str, str]]:
    """What is told of every run, as names and values."""
    told = [("tasks", task_counts(model))]
    timing = model.timing
    if timing.path:
        told += [("path", path(timing)), ("waiting", waiting(timing))]
    slowest = [node for node in model.slowest(SLOWEST) if node.duration >= SLOW]
    if slowest:
        told.append(("slowest", ", ".join(f"{node.id} {duration(node.duration)}" for node in slowest)))
    return told


def task_counts(model: ProgressModel) -> str:
    """``700 run, 3 failed, 2 retries``."""
    states = model.counts()
    run = states[SUCCEEDED] + states[FAILED]
    parts = [f"{run:,} run"]
    parts += [f"{states[FAILED]:,} failed"] if states[FAILED] else []
    parts += [f"{model.total - run:,} not run"] if run < model.total else []
    parts += [counted(model.retries, "retry", "retries")] if model.retries else []
    return ", ".join(parts)


def path(timing: Timing) -> str:
    """``plan 0.1 s > email 4.2 s > report 0.3 s``: the tasks without which the run would have ended earlier."""
    shares = list(_shares(timing.path))
    if len(shares) > PATH:
        long = sorted(sorted(range(len(shares)), key=lambda index: -shares[index][1])[:PATH])
        left_out = len(shares) - PATH
        told = [f"{shares[index][0]} {duration(shares[index][1])}" for index in long]
        return " > ".join(told) + f", and {counted(left_out, 'shorter task')}"
    return " > ".join(f"{name} {duration(seconds)}" for name, seconds in shares)


def waiting(timing: Timing) -> str:
    """How much of the run's time was lost on the critical path, and to what."""
    parts = [f"{duration(timing.queued)} for workers", f"{duration(timing.barriers)} at barriers"]
    parts += [f"{duration(timing.repeated)} in attempts that were repeated"] if timing.repeated else []
    return f"{', '.join(parts)}, of {duration(timing.seconds)}"


def as_json(model: ProgressModel) -> dict[str, Any]:
    """The same for a program."""
    states, timing = model.counts(), model.timing
    return {
        "tasks": {state: states[state] for state in ("succeeded", "failed", "skipped")},
        "retries": model.retries,
        "slowest": [{"node": node.id, "seconds": node.duration} for node in model.slowest(SLOWEST)],
        "critical_path": [
            {"node": step.node, "attempt": step.attempt, "waited": _ms(step.waited), "worked": _ms(step.worked)}
            for step in timing.path
        ],
        "time": {
            name: _ms(getattr(timing, name))
            for name in ("worked", "repeated", "queued", "barriers", "other", "queued_in_all", "idle_in_all")
        },
    }


def _shares(steps: tuple[PathStep, ...]) -> Iterator[tuple[str, float]]:
    """The tasks of a path and how long each ran in all; attempts of one that follow each other are one."""
    name, seconds = "", 0.0
    for step in steps:
        if not step.attempt:
            continue
        if name and node_of(step.node) != name:
            yield name, seconds
            seconds = 0.0
        name = node_of(step.node)
        seconds += step.worked
    if name:
        yield name, seconds


def _ms(seconds: float) -> float:
    return round(seconds, 3)
