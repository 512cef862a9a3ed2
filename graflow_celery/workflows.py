"""`workflow(...)`: what a user writes, and the ways to run it. The top of the library; shells and tests sit on it."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.diagram import to_dot, to_mermaid
from graflow_celery.core.lower import lower
from graflow_celery.core.plan import Plan
from graflow_celery.errors import ConfigError
from graflow_celery.local import LocalRun
from graflow_celery.ports import EventRecord

if TYPE_CHECKING:
    from graflow_celery.distributed import Run
    from graflow_celery.settings import Settings

Progress = Callable[[EventRecord], None]


class WorkflowContext(WorkflowDefinition):
    """A workflow: write it inside ``with``, run it there or later. Make one with :func:`workflow`."""

    def execute(
        self,
        start_node: str | None = None,
        *,
        ret_context: bool = False,
        initial_channel: Mapping[str, Any] | None = None,
        backend: Literal["local", "celery"] = "local",
        timeout: float | None = None,
        progress: Progress | None = None,
        settings: Settings | None = None,
    ) -> Any:
        """Runs the workflow to its end and returns the last result.

        The last result is that of the only node without a successor or, where several have none, of the node that
        succeeded last; of a group it is ``{member id: result}``.

        Args:
            start_node: where to begin; needed only if no single node stands out.
            ret_context: return ``(result, ExecutionContext)``.
            initial_channel: values that the channel starts with.
            backend: ``"local"`` runs in threads of this process, ``"celery"`` on the workers.
            timeout: seconds after which the run is cancelled and RunTimeoutError raised.
            progress: called with each event of the run as it happens.
            settings: for ``backend="celery"``; read from the environment by default.

        Raises:
            GraphCompilationError: the workflow cannot run as written. Nothing was started.
            UnavailableError: no server answers, or no live worker consumes a queue. Nothing was started.
            Exception: what the failed task raised, with its traceback; ParallelGroupError for a group.
        """
        if backend == "local":
            run = LocalRun(self, start_node=start_node, initial_channel=initial_channel, observer=progress)
            result = run.execute(timeout)
            return (result, run.context) if ret_context else result
        if backend != "celery":
            raise ConfigError(f"Unknown backend '{backend}'. Use 'local' or 'celery'.")
        distributed = _distributed()
        submitted: Run = distributed.submit(
            self,
            start_node=start_node,
            initial_channel=initial_channel,
            settings=settings,
            require_workers=True,
        )
        result = distributed.finish(submitted, timeout=timeout, progress=progress)
        return (result, submitted.context) if ret_context else result

    def submit(
        self,
        start_node: str | None = None,
        *,
        initial_channel: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        settings: Settings | None = None,
        require_workers: bool = False,
    ) -> Run:
        """Starts the workflow on the Celery workers and returns at once.

        Args:
            start_node, initial_channel, settings: as in :meth:`execute`.
            run_id: the run's id. A second submit of it returns the run that is there and starts nothing.
            require_workers: raise NoWorkerError if no live worker consumes a queue of the workflow.
        """
        run: Run = _distributed().submit(
            self,
            start_node=start_node,
            initial_channel=initial_channel,
            run_id=run_id,
            settings=settings,
            require_workers=require_workers,
        )
        return run

    def plan(self, start_node: str | None = None) -> Plan:
        """The checked graph that a run would follow. Raises GraphCompilationError if there is none."""
        return lower(self.graph, self.name, start_node)

    def to_mermaid(self) -> str:
        """The graph as a Mermaid flowchart."""
        return to_mermaid(self.graph)

    def to_dot(self) -> str:
        """The graph in Graphviz's language."""
        return to_dot(self.graph, self.name)


def workflow(name: str) -> WorkflowContext:
    """A new workflow; ``with workflow("etl") as wf:`` registers what is written inside.

    Raises:
        ConfigError: the name is empty.
    """
    if not name:
        raise ConfigError("A workflow needs a name: workflow('etl').")
    return WorkflowContext(name)


@functools.cache
def _distributed() -> Any:
    """The distributed layer. Loaded by name on first use: Celery and Redis cost 200 ms that local runs do not owe."""
    return importlib.import_module("graflow_celery.distributed")
