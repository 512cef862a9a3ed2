"""For how long runs and what is late of them are left alone."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """``run_ttl`` and ``result_ttl`` in seconds; so are ``grace``, after which an unsent command is due, and
    ``patience``, after which the monitor looks at what has not ended.
    """

    run_ttl: int
    result_ttl: int
    grace: float
    patience: float
