"""Waiting for what other processes do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

FIRST_SLICE = 0.005
LONGEST_SLICE = 0.1

Found = TypeVar("Found")


def wait_until(predicate: Callable[[], Found], *, timeout: float = 10.0, description: str) -> Found:
    """Waits until ``predicate()`` is true, asking at growing intervals, and returns its value.

    Args:
        predicate: asked at least twice, the last time when the time is up. What it raises passes through.
        timeout: seconds.
        description: what is waited for, as it follows "Waited for": "the worker to be gone".

    Raises:
        TimeoutError: it was not true in time; the message has the description.
    """
    deadline = time.monotonic() + timeout
    pause = FIRST_SLICE
    never = threading.Event()
    while not (found := predicate()):
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"Waited for {description}: not within {timeout:g} s.")
        never.wait(min(pause, left))
        pause = min(pause * 1.5, LONGEST_SLICE)
    return found
