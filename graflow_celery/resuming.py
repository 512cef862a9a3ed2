"""Going on from a checkpoint: `CheckpointManager`, `WorkflowEngine`, and the context between them, as in graflow::

context, metadata = CheckpointManager.resume_from_checkpoint(path)
result = WorkflowEngine().execute(context)       # here, in threads
run = context.submit()                           # or on the Celery workers
"""

from __future__ import annotations

import functools
import importlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from graflow_celery.checkpointing import codec_of, read
from graflow_celery.core.state import RunState
from graflow_celery.engine.checkpoint import Checkpoint, CheckpointMetadata, continued
from graflow_celery.engine.context import ExecutionContext
from graflow_celery.engine.feedback import Handler
from graflow_celery.engine.stored import StoredGraphs
from graflow_celery.errors import CheckpointError, ConfigError, GraflowError
from graflow_celery.local import LocalRun
from graflow_celery.memory_backend.channel import MemoryChannel
from graflow_celery.memory_backend.graphs import LocalGraphs
from graflow_celery.memory_backend.run_store import MemoryRunStore
from graflow_celery.ports import EventRecord, RunRef
from graflow_celery.settings import Settings, load_settings
from graflow_celery.tracing.choosing import of_settings

if TYPE_CHECKING:
    from graflow_celery.runs import Run

Progress = Callable[[EventRecord], None]


class CheckpointManager:
    """Takes and reads checkpoints, under graflow's names. It has no state: all of its methods are of the class."""

    @classmethod
    def create_checkpoint(
        cls,
        context: ExecutionContext,
        *,
        path: str | os.PathLike[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> tuple[str, CheckpointMetadata]:
        """Keeps what a run has come to. See :meth:`ExecutionContext.checkpoint`.

        Raises:
            CheckpointError: it cannot be written. SerializationError: something that it has to hold cannot.
        """
        where, made = context.checkpoint(metadata, None if path is None else os.fspath(path))
        if not isinstance(made, CheckpointMetadata):
            raise ConfigError(f"This run's checkpoints are no files of graflow_celery: {type(made).__name__}.")
        return where, made

    @classmethod
    def resume_from_checkpoint(
        cls, checkpoint_path: str | os.PathLike[str], *, settings: Settings | None = None
    ) -> tuple[ResumedContext, CheckpointMetadata]:
        """What is needed to go on from a checkpoint, whichever backend and process took it. Nothing runs yet.

        Args:
            checkpoint_path: what ``checkpoint()`` returned: a file's path, or ``redis:...``.
            settings: with which secret and serializers it is read, and from which store; the environment's by default.

        Raises:
            CheckpointError: there is none, or it cannot be read: it is damaged, of a newer version, signed with another
                secret, or no checkpoint at all.
        """
        chosen = settings or load_settings()
        path = os.fspath(checkpoint_path)
        checkpoint = read(path, chosen)
        return ResumedContext(checkpoint, path, chosen), checkpoint.metadata


class WorkflowEngine:
    """Runs what :meth:`CheckpointManager.resume_from_checkpoint` returned, under graflow's name."""

    def execute(self, context: ExecutionContext, start_task_id: str | None = None) -> Any:
        """Goes on, in threads of this process, and returns the last result. See :meth:`ResumedContext.execute`.

        Raises:
            ConfigError: the context is of no checkpoint, or a start is asked for: a run goes on where it was.
        """
        if not isinstance(context, ResumedContext):
            raise ConfigError(
                "WorkflowEngine().execute() goes on from a checkpoint: give it what "
                "CheckpointManager.resume_from_checkpoint(path) returned. A workflow runs with wf.execute()."
            )
        if start_task_id is not None:
            raise ConfigError(
                f"start_task_id='{start_task_id}': a run goes on where its checkpoint was taken. To begin elsewhere: "
                f"wf.execute(start_node='{start_task_id}')."
            )
        return context.execute()


class ResumedContext(ExecutionContext):
    """The context of a run that a checkpoint was taken of, as it was then; of the run that goes on, once one does."""

    def __init__(self, checkpoint: Checkpoint, path: str, settings: Settings) -> None:
        self.checkpoint_path = path
        self._checkpoint = checkpoint
        self._settings = settings
        codec = codec_of(settings)
        try:
            self._stored = StoredGraphs(checkpoint.graph, checkpoint.blobs, codec, f"process {os.getpid()}")
        except GraflowError as error:
            raise CheckpointError(path, str(error)) from error
        run = RunRef(checkpoint.metadata.session_id, checkpoint.graph)
        channel = MemoryChannel(checkpoint.snapshot.channel)
        store = MemoryRunStore(channel, time.time, state=RunState())
        store.restore(run, checkpoint.snapshot)
        super().__init__(run, self._stored.plan(), store, channel, llm=self._stored.llm(threading.RLock()))
        self.checkpoint_metadata = checkpoint.metadata.user_metadata

    def execute(
        self,
        *,
        backend: Literal["local", "celery"] = "local",
        timeout: float | None = None,
        progress: Progress | None = None,
        feedback: Handler | None = None,
        checkpoint_every: int = 0,
        checkpoint_to: str | os.PathLike[str] | None = None,
    ) -> Any:
        """Goes on to the end, as a new run, and returns the last result. What had ended does not run again.

        The arguments, and what it raises, are those of :meth:`WorkflowContext.execute`.
        """
        if backend == "celery":
            run = self.submit(require_workers=True, checkpoint_every=checkpoint_every, checkpoint_to=checkpoint_to)
            result = _distributed().finish(run, timeout=timeout, progress=progress, feedback=feedback)
            self._adopt(run.context)
            return result
        if backend != "local":
            raise ConfigError(f"Unknown backend '{backend}'. Use 'local' or 'celery'.")
        graphs = LocalGraphs(self._stored.plan(), stored=self._stored)
        here = LocalRun(
            graphs,
            observer=progress,
            llm=self._stored.llm(threading.RLock()),
            feedback=feedback,
            checkpoint_every=checkpoint_every,
            checkpoint_to=checkpoint_to,
            settings=self._settings,
            tracer=of_settings(self._settings),
        )
        snapshot, emissions = continued(self._checkpoint, here.run.id, lambda graph: graphs.plan_for(here.run, graph))
        here.context.checkpoint_metadata = self.checkpoint_metadata
        self._adopt(here.context)
        try:
            return here.execute(
                timeout, start=lambda: here.resume(snapshot, emissions, self._checkpoint.metadata.session_id)
            )
        finally:
            self.last_checkpoint_path = here.context.last_checkpoint_path

    def submit(
        self,
        *,
        require_workers: bool = False,
        checkpoint_every: int = 0,
        checkpoint_to: str | os.PathLike[str] | None = None,
    ) -> Run:
        """Goes on on the Celery workers, as a new run, and returns it at once."""
        run: Run = _distributed().resume(
            self._checkpoint,
            settings=self._settings,
            require_workers=require_workers,
            checkpoint_every=checkpoint_every,
            checkpoint_to=checkpoint_to,
        )
        self._adopt(run.context)
        return run

    def _adopt(self, context: ExecutionContext) -> None:
        self.run = context.run
        self.checkpoints = context.checkpoints
        self._store = context._store
        self._channel = context._channel


@functools.cache
def _distributed() -> Any:
    """Loaded by name on first use, as in `workflows`."""
    return importlib.import_module("graflow_celery.distributed")
