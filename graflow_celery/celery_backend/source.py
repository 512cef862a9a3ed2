"""What the client that started a run has of its content: it can put back what the store loses."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.codec.manifest import PackedGraph, unchanged
from graflow_celery.engine.checkpoint import Checkpoint
from graflow_celery.errors import SerializationError, UnavailableError
from graflow_celery.ports import EventRecord, RunRef
from graflow_celery.redis_backend.snapshots import packed_fields
from graflow_celery.redis_backend.values import ValueStore

logger = logging.getLogger(__name__)


class Source:
    """Of one run. ``put`` stores what is absent of its blobs; ``pack`` of the large values that it began with."""

    def __init__(self, runtime: Runtime, put: Callable[[], Any], pack: Callable[[ValueStore], Any]) -> None:
        self._runtime = runtime
        self._put = put
        self._pack = pack

    @classmethod
    def of_graph(cls, runtime: Runtime, packed: PackedGraph, channel: Mapping[str, Any]) -> Source:
        packed = runtime.packed.setdefault(packed.hash, packed)  # a thousand runs of a graph keep it once
        began = dict(channel)
        return cls(
            runtime,
            lambda: runtime.content.ensure(unchanged(packed)),
            lambda values: [values.pack_entry(value, f"channel key '{key}'") for key, value in began.items()],
        )

    @classmethod
    def of_checkpoint(cls, runtime: Runtime, checkpoint: Checkpoint) -> Source:
        """Of a run that goes on from it."""
        snapshot = checkpoint.snapshot
        return cls(
            runtime,
            lambda: runtime.content.put(checkpoint.blobs),
            lambda values: packed_fields(values, snapshot),
        )

    def put_back(self, run: RunRef, missed: EventRecord) -> None:
        """Uploads again what a worker missed and this client has, and wakes those who wait for it."""
        content = self._runtime.content
        names = str(missed.get("names", "")).split(",")
        try:
            absent = content.absent(names)
            if absent:
                content.seen.forget()
                self._put()
                self._pack(self._runtime.values.held_by(run))
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
