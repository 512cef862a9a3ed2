"""The conversation of a peer's driver with the benchmark. Runs in the peer's own environment: standard library alone.

The benchmark names a piece of work and its sizes; the driver does it with its task queue and says how many seconds that
took, by its own clock. The first work that it does not know ends it, and so does the benchmark's end.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Client


def serve(works: Mapping[str, Callable[..., object]]) -> None:
    """``works``: by name; each takes numbers. The socket's path is the program's first argument."""
    with Client(sys.argv[1], "AF_UNIX") as line:
        line.send("ready")
        while True:
            try:
                name, sizes = line.recv()
            except (EOFError, ConnectionError):
                return
            began = time.perf_counter()
            works[name](*sizes)
            line.send(time.perf_counter() - began)
