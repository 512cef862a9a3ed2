"""Reports the death of a worker: ``python -m graflow_celery.redis_backend.obituary WORKER``. See `deathwatch`."""

from __future__ import annotations

import sys
from contextlib import suppress

import redis

from graflow_celery.errors import UnavailableError
from graflow_celery.redis_backend.client import Scripts, connect, patience
from graflow_celery.redis_backend.keys import Keys
from graflow_celery.redis_backend.liveness import Liveness
from graflow_celery.settings import load_settings


def main(worker: str) -> None:
    settings = load_settings()
    # Where no server answers at once, there is the lease.
    client = connect(settings.redis_url)
    with suppress(redis.RedisError, UnavailableError), patience(0.0):
        Liveness(client, Scripts(client), Keys(settings.key_prefix), settings.heartbeat_timeout).report(worker)
    client.close()


if __name__ == "__main__":
    main(sys.argv[1])
