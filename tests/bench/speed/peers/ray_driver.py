"""Ray: a node with two processors. Argument: the benchmark's socket."""

from __future__ import annotations

import ray
from serving import serve

TIMEOUT = 300


@ray.remote
def noop(*_: object) -> int:
    return 1


@ray.remote
def collect(*results: int) -> int:
    return len(results)


def barrier(members: int) -> None:
    assert ray.get(collect.remote(*(noop.remote() for _ in range(members))), timeout=TIMEOUT) == members


def barriers(count: int, members: int) -> None:
    for _ in range(count):
        barrier(members)


def line(length: int) -> None:
    step = noop.remote()
    for _ in range(length - 1):
        step = noop.remote(step)
    ray.get(step, timeout=TIMEOUT)


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve({"barrier": barrier, "barriers": barriers, "line": line})
    ray.shutdown()
