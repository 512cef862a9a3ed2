"""Waits for the end of the process that started it. A program of its own, on the standard library alone, to stay small.

    python -I -S vigil.py COMMAND ARGUMENT...

The kernel closes the other end of standard input when that process ends, however it ends, and then COMMAND takes this
process's place. A byte that arrives before says that it ends in good order: then there is nothing to do.
"""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # meant for the worker, and sent to all of a group
        signal.signal(number, signal.SIG_IGN)
    if not os.read(0, 1):
        os.execv(sys.argv[1], sys.argv[1:])
