"""Lets a cleanup come to its end although the user presses Ctrl-C again."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def uninterrupted(hurry: Callable[[], None]) -> Iterator[None]:
    """Inside, a Ctrl-C calls ``hurry`` (which must not wait) instead of raising; KeyboardInterrupt follows at the end.

    Only the main thread is ever interrupted: elsewhere this does nothing.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield
        return
    interrupts: list[int] = []

    def note(number: int, _: object) -> None:
        interrupts.append(number)
        hurry()

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if interrupts:
            before(signal.SIGINT, None)
