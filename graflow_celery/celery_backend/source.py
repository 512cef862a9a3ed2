"""What the client that started a run has of its content: it can put back what the store loses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.codec.manifest import PackedGraph, unchanged
from graflow_celery.errors import SerializationError, UnavailableError
from graflow_celery.ports import EventRecord, RunRef

logger = logging.getLogger(__name__)


class Source:
    """Of one run. ``put`` stores what is absent of its blobs. Of ``channel``, its values at the start, likewise."""

    def __init__(self, runtime: Runtime, put: Callable[[], Any], channel: Mapping[str, Any]) -> None:
        self._runtime = runtime
        self._put = put
        self._channel = dict(channel)

    @classmethod
    def of_graph(cls, runtime: Runtime, packed: PackedGraph, channel: Mapping[str, Any]) -> Source:
        packed = runtime.packed.setdefault(packed.hash, packed)  # a thousand runs of a graph keep it once
        return cls(runtime, lambda: runtime.content.ensure(unchanged(packed)), channel)

    def put_back(self, run: RunRef, missed: EventRecord) -> None:
        """Uploads again what a worker missed and this client has, and wakes those who wait for it."""
        content = self._runtime.content
        names = str(missed.get("names", "")).split(",")
        try:
            absent = content.absent(names)
            if absent:
                content.seen.forget()
                self._put()
                values = self._runtime.values.held_by(run)
                for key, value in self._channel.items():
                    values.pack_entry(value, f"channel key '{key}'")
                back = set(absent).difference(content.absent(absent))
                if back:
                    self._warn(run, missed, sorted(back))
            content.plea.ring(run)
        except (UnavailableError, SerializationError) as error:
            logger.warning("run %s: what the store lost could not be uploaded again: %s", run.id, error)

    def _warn(self, run: RunRef, missed: EventRecord, back: list[str]) -> None:
        logger.warning(
            "run %s: the store had lost blob %s (%s), which '%s' needs; it was uploaded again. "
            "See what `graflow-celery doctor` says of eviction and persistence.",
            run.id,
            ", ".join(back),
            missed.get("what", "content"),
            missed.get("node", ""),
        )
