"""Reports the death of a worker. See `graflow_celery.celery_backend.deathwatch`."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

import redis

from graflow_celery.errors import UnavailableError
from graflow_celery.redis_backend.client import Scripts, connect, patience
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.liveness import Liveness
from graflow_celery.settings import Settings, load_settings


def report(settings: Settings, worker: str) -> None:
    """Tells the store that a worker's main process has ended. Where no server answers at once, there is the lease."""
    client = connect(settings.redis_url)
    with suppress(redis.RedisError, UnavailableError), patience(0.0):
        Liveness(client, Scripts(client), Keys(settings.key_prefix), settings.heartbeat_timeout).report(worker)
    client.close()


def main(worker: str) -> None:
    """Reports the death of a worker when standard input ends; by then all is imported."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    settings = load_settings()
    if not os.read(0, 1):
        report(settings, worker)


if __name__ == "__main__":
    main(sys.argv[1])
