"""Which start of which worker this process belongs to."""

from __future__ import annotations

import uuid

from graflow_celery.redis_backend.liveness import worker_id

#: Marks this start of the worker. The processes that its pool forks have it too.
BOOT = uuid.uuid4().hex[:8]


def holder_of(hostname: str) -> str:
    """How records name the worker that this process is, or belongs to. ``hostname``: Celery's node name."""
    return worker_id(hostname, BOOT)
