"""Checkpoints of runs on the workers: taken by whichever process committed what made one due."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import redis

from graflow_celery.checkpointing import STORE, Where, take
from graflow_celery.codec.manifest import blob_names
from graflow_celery.codec.values import ValueCodec
from graflow_celery.core.commands import graph_of
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import Applied, Transition
from graflow_celery.engine.cadence import occasion
from graflow_celery.engine.checkpoint import CheckpointMetadata, SentGraphs
from graflow_celery.errors import GraflowError
from graflow_celery.ports import RunRef, Snapshot
from graflow_celery.redis_backend.content_store import ContentStore
from graflow_celery.redis_backend.snapshots import RedisSnapshots
from graflow_celery.settings import Settings

RUNS_KEPT = 4096

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a run was started with: a checkpoint after ``every`` ends of nodes (0 for none), and where to."""

    every: int = 0
    to: str = STORE


class WorkerCheckpoints:
    """Those of one process. ``wish`` reads what a run was started with."""

    def __init__(
        self, snapshots: RedisSnapshots, content: ContentStore, settings: Settings, wish: Callable[[RunRef], Wish]
    ) -> None:
        self._snapshots = snapshots
        self._content = content
        self._settings = settings
        self._read_wish = wish
        self._wishes: OrderedDict[str, Wish] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, run: RunRef, plan: Plan) -> RunCheckpoints:
        return RunCheckpoints(run, plan, self._snapshots, self._content, self._settings, lambda: self._wish(run).to)

    def after_commit(self, run: RunRef, plan: Plan, transition: Transition, applied: Applied) -> None:
        """Takes the checkpoint that is due, if one is. The run goes on without it where it cannot be taken."""
        if not (transition.is_final or transition.pauses):
            return
        try:
            metadata = occasion(transition, applied, self._wish(run).every)
            if metadata is not None:
                self.of(run, plan).take(metadata)
        except (GraflowError, OSError, redis.RedisError) as error:
            logger.warning("run %s: no checkpoint: %s", run.id, error)

    def _wish(self, run: RunRef) -> Wish:
        """Asked once for each run."""
        with self._lock:
            if run.id in self._wishes:
                self._wishes.move_to_end(run.id)
                return self._wishes[run.id]
        wish = self._read_wish(run)
        with self._lock:
            self._wishes[run.id] = wish
            while len(self._wishes) > RUNS_KEPT:
                self._wishes.popitem(last=False)
        return wish


class RunCheckpoints:
    """See :class:`graflow_celery.engine.context.Checkpoints`. Those of one run in the store."""

    def __init__(
        self,
        run: RunRef,
        plan: Plan,
        snapshots: RedisSnapshots,
        content: ContentStore,
        settings: Settings,
        where: Callable[[], Where],
    ) -> None:
        self.run = run
        self.plan = plan
        self.backend = {"run": "celery", "channel": "redis"}
        self._snapshots = snapshots
        self._content = content
        self._settings = settings
        self._where = where
        self._graphs: set[str] = set()

    def take(self, metadata: Mapping[str, Any], path: str | None = None) -> tuple[str, CheckpointMetadata]:
        return take(self, metadata, path, self._where(), self._settings)

    def snapshot(self) -> Snapshot:
        snapshot = self._snapshots.snapshot(self.run)
        named = {record.graph for record in snapshot.state.nodes.values()}
        self._graphs = named | {graph_of(command) for command in snapshot.state.outbox}
        return snapshot

    def graphs(self, codec: ValueCodec) -> SentGraphs:
        """Those that the newest snapshot names."""
        roots = [self.run.hash, *sorted(self._graphs - {""})]
        names = {
            name: None for root in roots for name in blob_names(root, self._content.get, codec, self._content.get_all)
        }
        what = "a function or graph of the run"
        return SentGraphs(self.run.hash, dict(zip(names, self._content.sealed(list(names), what), strict=True)))

    def taken(self, path: str, metadata: CheckpointMetadata) -> None:
        self._snapshots.taken(self.run, path, metadata.steps)
