"""What stands in for a tracer where nothing is traced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graflow_celery.core.events import Event
from graflow_celery.core.state import Applied
from graflow_celery.ports import Attempt, Outcome, RunRef, Span, Tracer


class _Untraced:
    """A tracer that notes nothing, and the span of each attempt that it follows."""

    def begin(self, attempt: Attempt) -> Span:
        return self

    def ended(self, run: RunRef) -> None:
        return None

    def call(self, function: Callable[[], Any]) -> Any:
        return function()

    def end(self, event: Event, outcome: Outcome, applied: Applied) -> None:
        return None


_NOTHING = _Untraced()
UNTRACED: Tracer = _NOTHING
UNTRACED_SPAN: Span = _NOTHING
