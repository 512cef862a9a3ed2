"""The signals that ask for the end: how a command with something to put away ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from graflow_celery.cli import render

INTERRUPTED = 130
Handler = Callable[[int, FrameType | None], object]


class Terminated(KeyboardInterrupt):
    """Another signal than Ctrl-C asked for the end. Whatever handles Ctrl-C handles this."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_code = 128 + signum


def exit_code_of(interrupt: KeyboardInterrupt) -> int:
    """130 for Ctrl-C, 128 + n for another signal n."""
    return interrupt.exit_code if isinstance(interrupt, Terminated) else INTERRUPTED


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, by an exception, so that everything is put away."""

    def end(signum: int, _: FrameType | None) -> None:
        raise Terminated(signum)

    with handling((signal.SIGTERM, signal.SIGHUP), end):
        yield


@contextmanager
def handling(signals: Sequence[signal.Signals], handler: Handler) -> Iterator[None]:
    """Handles some signals in a way of its own while the block runs. For the main thread."""
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextmanager
def leaving_at_second_interrupt() -> Iterator[None]:
    """For tasks in threads, which cannot be stopped: the first Ctrl-C waits for them, a second one leaves."""
    seen: list[int] = []

    def interrupted(signum: int, _: FrameType | None) -> None:
        if seen:
            os._exit(INTERRUPTED)
        seen.append(signum)
        render.notice("Waiting for the tasks that run. Ctrl-C again leaves at once.")
        raise KeyboardInterrupt

    with handling((signal.SIGINT,), interrupted):
        yield
