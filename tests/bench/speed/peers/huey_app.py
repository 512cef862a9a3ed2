"""huey's tasks, as its driver and its workers import them. ``PEER_REDIS``: the URL of Redis.

`notify_result` lets a client block for a result instead of polling for it.
"""

from __future__ import annotations

import os

from huey import RedisHuey

huey = RedisHuey("peer", url=os.environ["PEER_REDIS"], notify_result=bool(os.environ.get("PEER_NOTIFY", "1")))


@huey.task()
def noop(*_: object) -> int:
    return 1


@huey.task()
def collect(results: list[int]) -> int:
    return len(results)
