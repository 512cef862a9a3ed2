"""What is done to workers, and how long it takes until what they held runs elsewhere."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field
from typing import Any

from celery.exceptions import TimeoutError as CeleryTimeoutError

from graflow_celery.errors import RunTimeoutError
from graflow_celery.testing import wait_until
from tests.bench.faults.gate import pass_time
from tests.bench.faults.nodes import Node
from tests.bench.faults.sides import PREFETCH, Opened, Session

LABELS = ("one", "two", "three", "four")
BOUND = 20.0
SEED = 4
PHASE = random.Random(SEED)


@dataclass(frozen=True)
class Try:
    """One try: seconds until all was well again, None if not within the bound; a remark; what is wrong."""

    seconds: float | None
    note: str = ""
    problems: list[str] = field(default_factory=list)


def killed(opened: Opened) -> Try:
    """SIGKILL to a node that runs two tasks and has prefetched two; another one is idle."""
    with opened() as session:
        victim, _ = held_by_one(session, session.submit)
        at = victim.kill()
        return elsewhere(session, at)


def hung(opened: Opened) -> Try:
    """SIGSTOP to the same. When all runs elsewhere it goes on: its tasks come to their end, and must change nothing."""
    with opened() as session:
        victim, before = held_by_one(session, session.submit)
        at = victim.freeze()
        marks = session.gate.first_after(at, LABELS, BOUND)
        victim.thaw()
        if len(marks) < len(LABELS):
            return Try(None, f"{len(marks)} of {len(LABELS)} ran elsewhere")
        session.gate.open()
        settled = _settled(session, victim, {mark.pid for mark in before})
        problems = session.problems(dict.fromkeys(LABELS, "B"))
        return Try(max(mark.at for mark in marks.values()) - at, settled, problems)


def child_killed(opened: Opened) -> Try:
    """SIGKILL, as the OOM killer's, to one process of a pool of two that both run a task."""
    with opened() as session:
        session.node("A", 2).wait_ready()
        session.submit(LABELS[:2])
        victim = session.gate.wait_begun(2)[0]
        pass_time(PHASE.uniform(0, 5))  # Celery looks for dead processes every 5 s, from the start of the worker on.
        at = time.monotonic()
        os.kill(victim.pid, signal.SIGKILL)
        marks = session.gate.first_after(at, [victim.label], BOUND)
        if not marks:
            return Try(None, "it did not run again")
        session.gate.open()
        return Try(marks[victim.label].at - at, "", session.problems(dict.fromkeys(LABELS[:2], "A")))


def failed_fast(opened: Opened) -> Try:
    """SIGKILL to a node whose tasks are not to be run again: until the caller has its error."""
    with opened() as session:
        calls: list[Future[Any]] = []
        victim, _ = held_by_one(session, lambda labels: calls.append(session.call(labels, BOUND + 30)))
        at = victim.kill()
        try:
            error = calls[0].exception(timeout=BOUND)
        except FutureTimeoutError:
            return Try(None, "the caller waits")
        seconds = time.monotonic() - at
        if error is None or isinstance(error, (RunTimeoutError, CeleryTimeoutError)):
            return Try(None, "the caller got no error")
        problems = []
        text = "".join(f"{part}\n" for part in (str(error), *getattr(error, "__notes__", ())))
        for wanted, words in {"worker": [victim.name], "task": LABELS, "last beat": ["beat"]}.items():
            if not any(word in text for word in words):
                problems.append(f"the error does not name the {wanted}: {text}")
        return Try(seconds, type(error).__name__, problems)


def held_by_one(session: Session, submit: Callable[[tuple[str, ...]], object]) -> tuple[Node, list[Any]]:
    """Two nodes: A, which runs two tasks and holds two more, and B, which has been idle since it became ready."""
    holder = session.node("A", 2, *PREFETCH)
    holder.wait_ready()
    submit(LABELS)
    before = session.gate.wait_begun(2)
    wait_until(lambda: session.waiting() == 0, timeout=30, description="the queue to be empty")
    session.node("B", 4).wait_ready()
    pass_time(PHASE.uniform(0, 1))  # Beats come every second; a worker dies whenever it likes.
    return holder, before


def elsewhere(session: Session, at: float) -> Try:
    """Until all four have begun on B, and what came of it when the gate was opened."""
    marks = session.gate.first_after(at, LABELS, BOUND)
    if len(marks) < len(LABELS):
        return Try(None, f"{len(marks)} of {len(LABELS)} ran elsewhere")
    session.gate.open()
    return Try(max(mark.at for mark in marks.values()) - at, "", session.problems(dict.fromkeys(LABELS, "B")))


def _settled(session: Session, victim: Node, pids: set[int]) -> str:
    """Waits until each process that was stopped in a task has ended it, or has been ended; says which it was."""

    def done() -> set[int]:
        alive = {process.pid for process in victim.processes()} if victim.process.running else set()
        return {mark.pid for mark in session.gate.ended() if mark.node == "A"} | (pids - alive)

    wait_until(lambda: pids <= done(), timeout=20, description="the old attempts to come to their end")
    ended = {mark.pid for mark in session.gate.ended() if mark.node == "A"} & pids
    return f"{len(ended)} old attempts ran to their end, {len(pids - ended)} were stopped"
