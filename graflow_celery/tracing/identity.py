"""The ids of a run's trace and of its spans. They follow from what they stand for.

So every process knows the parent of what it traces, long before the parent ends and whoever will tell of it: the ids
travel in no message that they depend on and are looked up nowhere.
"""

from __future__ import annotations

import functools
import hashlib
from typing import Literal

from graflow_celery.ports import RunRef

Kind = Literal["submit", "run", "group", "node", "attempt"]


@functools.lru_cache(maxsize=1024)
def trace_number(run_id: str) -> int:
    """The id of a run's trace as a number of 128 bits."""
    return int(_digits("trace", run_id)[:32], 16)


def trace_id_of(run_id: str) -> str:
    """The id of a run's trace: 32 hex digits."""
    return f"{trace_number(run_id):032x}"


def span_id_of(run: RunRef, kind: Kind, key: str = "", attempt: int = 0) -> str:
    """The id of a span: 16 hex digits. ``key`` is an activation's; what a retry of the run runs again has other ids."""
    return _digits(kind, run.id, str(run.first), key, str(attempt))[:16]


def traceparent_of(run: RunRef, kind: Kind, key: str = "", attempt: int = 0) -> str:
    """The header by which W3C Trace Context names a span that is sampled."""
    return f"00-{trace_id_of(run.id)}-{span_id_of(run, kind, key, attempt)}-01"


def _digits(*parts: str) -> str:
    return hashlib.sha256("\0".join(("graflow", *parts)).encode()).hexdigest()
