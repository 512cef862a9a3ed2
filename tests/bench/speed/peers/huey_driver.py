"""huey: two worker processes, its chord, and Redis. Arguments: the benchmark's socket, the URL of Redis."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from serving import serve

os.environ["PEER_REDIS"] = sys.argv[2]

from huey.api import chord
from huey_app import collect, huey, noop  # reads where Redis is

TIMEOUT = 300
HOME = Path(__file__).parent


def barrier(members: int) -> None:
    result = huey.enqueue(chord([noop.s() for _ in range(members)], collect.s()))
    assert result.get(blocking=True, timeout=TIMEOUT) == members


def barriers(count: int, members: int) -> None:
    for _ in range(count):
        barrier(members)


def line(length: int) -> None:
    steps = noop.s()
    for _ in range(length - 1):
        steps = steps.then(noop)
    list(huey.enqueue(steps))[-1].get(blocking=True, timeout=TIMEOUT)


def main() -> None:
    consumer = [str(Path(sys.executable).with_name("huey_consumer")), "huey_app.huey", "-w", "2", "-k", "process"]
    environment = {**os.environ, "PYTHONPATH": str(HOME)}
    with subprocess.Popen([*consumer, "--quiet"], cwd=HOME, env=environment) as workers:
        try:
            serve({"barrier": barrier, "barriers": barriers, "line": line})
        finally:
            workers.terminate()


if __name__ == "__main__":
    main()
