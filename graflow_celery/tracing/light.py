"""A span of an attempt that costs little while nobody looks at it.

Nearly all attempts succeed, and nearly none of their spans is touched by the user's code. In a provider of ours, which
has no processors but ours, such a span is an id until it ends, and is handed on as a whole then. Whoever asks it for
more, or gives it more, gets the SDK's own span, begun at the same time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from opentelemetry import trace

_making = threading.Lock()


class LightSpan(trace.Span):
    """See the module.

    Args:
        context: whose ids it has.
        make: makes the SDK's span that it is to be.
    """

    __slots__ = ("_context", "_make", "real")

    def __init__(self, context: trace.SpanContext, make: Callable[[], Any]) -> None:
        self._context = context
        self._make = make
        #: The SDK's span, once somebody wanted it.
        self.real: Any = None

    def get_span_context(self) -> trace.SpanContext:
        return self._context

    def is_recording(self) -> bool:
        return True if self.real is None else bool(self.real.is_recording())

    def become_real(self) -> Any:
        with _making:
            if self.real is None:
                self.real = self._make()
            return self.real

    def end(self, end_time: int | None = None) -> None:
        self.become_real().end(end_time)

    def set_attributes(self, attributes: Any) -> None:
        self.become_real().set_attributes(attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        self.become_real().set_attribute(key, value)

    def add_event(self, name: str, attributes: Any = None, timestamp: int | None = None) -> None:
        self.become_real().add_event(name, attributes, timestamp)

    def add_link(self, context: trace.SpanContext, attributes: Any = None) -> None:
        self.become_real().add_link(context, attributes)

    def update_name(self, name: str) -> None:
        self.become_real().update_name(name)

    def set_status(self, status: Any, description: str | None = None) -> None:
        self.become_real().set_status(status, description)

    def record_exception(
        self, exception: BaseException, attributes: Any = None, timestamp: int | None = None, escaped: bool = False
    ) -> None:
        self.become_real().record_exception(exception, attributes, timestamp, escaped)

    def __getattr__(self, name: str) -> Any:
        """What only the SDK's spans have: ``attributes``, ``name``..."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.become_real(), name)
