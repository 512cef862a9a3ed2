"""`python -m tests.fault.chaos_client`: submits a slice of the chaos command's runs and waits for them.

It may be killed at any moment and started again: the ids of its runs are the same then, so nothing starts twice.
"""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from graflow_celery import Run
from graflow_celery.errors import RunTimeoutError, UnavailableError
from tests.fault.chaos_workflows import build, channel

AGAIN_AFTER = 0.3

Answer = TypeVar("Answer")
logger = logging.getLogger(__name__)


def run_id(seed: int, number: int) -> str:
    return f"chaos-{seed}-{number}"


def insisting(call: Callable[[], Answer]) -> Answer:
    """What a program does for which the server is away: it tries again."""
    while True:
        try:
            return call()
        except UnavailableError as error:
            logger.warning("again in a moment: %s", error)
            threading.Event().wait(AGAIN_AFTER)


def submit(seed: int, number: int, pace: float) -> Run:
    return build(seed, number).submit(initial_channel=channel(pace), run_id=run_id(seed, number))


def wait(run: Run) -> None:
    def ended() -> bool:
        try:
            run.wait(timeout=30)
        except RunTimeoutError:
            return False
        return True

    while not insisting(ended):
        logger.warning("run %s goes on", run.id)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fault.chaos_client", description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--numbers", type=int, nargs=2, required=True, help="the first of its runs, and the one after")
    parser.add_argument("--window", type=int, default=6, help="how many of its runs go on at a time")
    parser.add_argument("--pace", type=float, default=1.0)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    going: deque[Run] = deque()
    for number in range(*chosen.numbers):
        if len(going) >= chosen.window:
            wait(going.popleft())
        going.append(insisting(partial(submit, chosen.seed, number, chosen.pace)))
        logger.info("submitted %s", going[-1].id)
    while going:
        wait(going.popleft())
    logger.info("all have ended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
