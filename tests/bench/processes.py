"""Worker processes of the sides that are not ours, for the time of a block."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from graflow_celery.embedded.process import GuardedProcess
from graflow_celery.embedded.scratch import ScratchDirectory
from graflow_celery.testing import wait_until


@contextmanager
def running(
    name: str, commands: list[list[str]], scratch: ScratchDirectory, env: Mapping[str, str], grace: float = 0.0
) -> Iterator[list[GuardedProcess]]:
    """Starts them, and at the end gives them ``grace`` seconds to end by themselves."""
    home = scratch.make()
    processes = [
        GuardedProcess(f"Worker {name}{number}", command, log=home / f"{name}{number}.log", env=env, scratch=home)
        for number, command in enumerate(commands)
    ]
    try:
        for process in processes:
            process.start()
        yield processes
    finally:
        for process in processes:
            if grace:
                process.wait(grace)
            process.stop(grace=0.0)
        scratch.remove()


def wait_ready(workers: Sequence[GuardedProcess], answers: Callable[[], bool]) -> None:
    """Waits until ``answers()``. Raises AssertionError with a log's end: one of them ended before."""

    def ready() -> bool:
        for worker in workers:
            assert worker.running, worker.last_words()
        return answers()

    wait_until(ready, timeout=60, description=f"{workers[0].name} and those beside it")


def environment(more: dict[str, str]) -> dict[str, str]:
    """This process's, with a PYTHONPATH that finds these modules."""
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH", "")])])
    return {**os.environ, "PYTHONPATH": path, **more}
