"""Finds the processes that a test started, whoever their parent is by now."""

from __future__ import annotations

import os

import psutil  # type: ignore[import-untyped]


def marked_processes(variable: str, value: str) -> list[psutil.Process]:
    """The living processes, other than this one, that were started with an environment variable set to a value."""
    return [
        process for process in psutil.process_iter() if process.pid != os.getpid() and _has(process, variable, value)
    ]


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _has(process: psutil.Process, variable: str, value: str) -> bool:
    try:
        return process.environ().get(variable) == value and is_alive(process.pid)
    except (psutil.NoSuchProcess, psutil.AccessDenied):  # A zombie counts as the former.
        return False


def pool_of(worker: int) -> list[int]:
    """The processes of a worker's pool, by the pid of its main process."""
    return [child.pid for child in _children(worker) if not _is_watch(child)]


def watch_over(worker: int) -> list[int]:
    """The small process that reports a worker's death."""
    return [child.pid for child in _children(worker) if _is_watch(child)]


def _children(pid: int) -> list[psutil.Process]:
    return list(psutil.Process(pid).children(recursive=True))


def _is_watch(process: psutil.Process) -> bool:
    """It leads a session of its own, which no process of a pool does."""
    return bool(os.getsid(process.pid) == process.pid)
