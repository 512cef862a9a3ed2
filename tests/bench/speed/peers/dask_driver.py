"""Dask: two worker processes with a thread each. Argument: the benchmark's socket."""

from __future__ import annotations

from distributed import Client, LocalCluster
from serving import serve

TIMEOUT = 300


def noop(*_: object) -> int:
    return 1


def collect(results: list[int]) -> int:
    return len(results)


def barrier(client: Client, members: int) -> None:
    found = client.submit(collect, client.map(noop, range(members), pure=False), pure=False)
    assert found.result(timeout=TIMEOUT) == members


def barriers(client: Client, count: int, members: int) -> None:
    for _ in range(count):
        barrier(client, members)


def line(client: Client, length: int) -> None:
    step = client.submit(noop, pure=False)
    for _ in range(length - 1):
        step = client.submit(noop, step, pure=False)
    step.result(timeout=TIMEOUT)


def main() -> None:
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        works = {"barrier": barrier, "barriers": barriers, "line": line}
        serve({name: lambda *sizes, work=work: work(client, *sizes) for name, work in works.items()})


if __name__ == "__main__":
    main()
