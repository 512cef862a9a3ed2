"""What ``graflow-celery doctor`` finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Seconds that a server may take to answer.
TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``remedy`` says what to do unless it is ok."""

    about: str
    state: Literal["ok", "warn", "fail"]
    text: str
    remedy: str = ""
