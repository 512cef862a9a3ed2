"""`workflow(...)`: what a user writes, and the ways to run it. The top of the library; shells and tests sit on it."""

from __future__ import annotations

import contextlib
import functools
import html
import importlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.diagram import to_dot, to_mermaid
from graflow_celery.core.lower import lower
from graflow_celery.core.picture import to_svg
from graflow_celery.core.plan import Plan
from graflow_celery.core.policy import SchedulingPolicy, as_scheduling_policy
from graflow_celery.core.task import Ship, check_ship
from graflow_celery.engine.feedback import Handler
from graflow_celery.engine.llm import LLMRegistry
from graflow_celery.errors import ConfigError, GraphCompilationError
from graflow_celery.local import MAX_STEPS, LocalRun
from graflow_celery.ports import EventRecord

if TYPE_CHECKING:
    from graflow_celery.runs import Run
    from graflow_celery.settings import Settings

Progress = Callable[[EventRecord], None]


class WorkflowContext(WorkflowDefinition):
    """A workflow: write it inside ``with``, run it there or later. Make one with :func:`workflow`."""

    def __init__(
        self,
        name: str,
        *,
        tracer: Any = None,
        scheduling: str | SchedulingPolicy | None = None,
        ship: Ship = "auto",
    ) -> None:
        super().__init__(name)
        self.tracer = tracer
        self.scheduling = as_scheduling_policy(scheduling)
        self.ship = ship
        self.llm = LLMRegistry(threading.RLock())

    def register_llm_agent(self, name: str, agent_or_factory: Any) -> None:
        """Gives the tasks of every run an agent: the object itself, or a factory that makes it where it is used."""
        self.llm.register_agent(name, agent_or_factory)

    def execute(
        self,
        start_node: str | None = None,
        max_steps: int = MAX_STEPS,
        ret_context: bool = False,
        initial_channel: Mapping[str, Any] | None = None,
        *,
        backend: Literal["local", "celery"] = "local",
        timeout: float | None = None,
        progress: Progress | bool | None = None,
        settings: Settings | None = None,
        feedback: Handler | None = None,
        checkpoint_every: int = 0,
        checkpoint_to: str | os.PathLike[str] | None = None,
    ) -> Any:
        """Runs the workflow to its end and returns the last result.

        The last result is that of the only node without a successor or, where several have none, of the node that
        succeeded last; of a group it is ``{member id: result}``. Of a run that waits for a person it is None.

        Args:
            start_node: where to begin; needed only if no single node stands out.
            max_steps: how many attempts of tasks may begin; when they are used up the run is ended, as terminated.
            ret_context: return ``(result, ExecutionContext)``.
            initial_channel: values that the channel starts with.
            backend: ``"local"`` runs in threads of this process, ``"celery"`` on the workers.
            timeout: seconds after which the run is cancelled and RunTimeoutError raised.
            progress: True shows how it goes, live on a terminal and elsewhere as lines, and at the end a summary. A
                function is called with each event of the run as it happens.
            settings: for ``backend="celery"``, for checkpoints and tracing; read from the environment by default.
            feedback: a function, or a `FeedbackHandler`, that is called in this process, in a thread of its own, with
                each request that a task makes for a person. What it returns answers the request, unless it is None.
            checkpoint_every: take a checkpoint whenever so many more nodes have ended; 0 for never. It costs some time,
                the more the run has come to.
            checkpoint_to: where checkpoints go that are given no path: a directory, ``"redis:"`` for the store of the
                settings, or the URL of another server. By default ``checkpoints``, on the workers the settings' store.

        Raises:
            GraphCompilationError: the workflow cannot run as written. Nothing was started.
            UnavailableError: no server answers, or no live worker consumes a queue. Nothing was started.
            Exception: what the failed task raised, with its traceback; ParallelGroupError for a group.
        """
        _check_steps(max_steps, checkpoint_every)
        if backend == "local":
            with self._shown(start_node, progress) as (tell, made):
                run = LocalRun(
                    self,
                    start_node=start_node,
                    initial_channel=initial_channel,
                    max_steps=max_steps,
                    observer=tell,
                    policy=self.scheduling,
                    llm=self.llm,
                    feedback=feedback,
                    checkpoint_every=checkpoint_every,
                    checkpoint_to=checkpoint_to,
                    settings=settings,
                    tracer=self._local_tracer(settings),
                )
                made(run)
                result = run.execute(timeout)
            return (result, run.context) if ret_context else result
        if backend != "celery":
            raise ConfigError(f"Unknown backend '{backend}'. Use 'local' or 'celery'.")
        submitted = self.submit(
            start_node,
            initial_channel=initial_channel,
            max_steps=max_steps,
            settings=settings,
            require_workers=True,
            checkpoint_every=checkpoint_every,
            checkpoint_to=checkpoint_to,
        )
        result = _module("distributed").finish(submitted, timeout=timeout, progress=progress, feedback=feedback)
        return (result, submitted.context) if ret_context else result

    async def execute_async(
        self,
        start_node: str | None = None,
        max_steps: int = MAX_STEPS,
        ret_context: bool = False,
        initial_channel: Mapping[str, Any] | None = None,
        *,
        backend: Literal["local", "celery"] = "local",
        timeout: float | None = None,
        progress: Progress | bool | None = None,
        settings: Settings | None = None,
        feedback: Handler | None = None,
        checkpoint_every: int = 0,
        checkpoint_to: str | os.PathLike[str] | None = None,
    ) -> Any:
        """What :meth:`execute` does, without blocking the event loop. However many runs wait, threads stay few.

        ``progress``, if it is a function, is called in the event loop. When the caller is cancelled, the run is
        cancelled.
        """
        _check_steps(max_steps, checkpoint_every)
        given: dict[str, Any] = {
            "start_node": start_node,
            "initial_channel": initial_channel,
            "max_steps": max_steps,
            "settings": settings,
            "checkpoint_every": checkpoint_every,
            "checkpoint_to": checkpoint_to,
        }
        if backend == "local":
            given |= {"policy": self.scheduling, "llm": self.llm, "feedback": feedback}
            given["tracer"] = self._local_tracer(settings)
            with self._shown(start_node, progress) as (tell, made):
                run = await _module("local_async").execute(self, timeout=timeout, progress=tell, made=made, **given)
                result = run.result()
        elif backend == "celery":
            submit = functools.partial(self.submit, require_workers=True, **given)
            result, run = await _module("distributed").execute_async(submit, timeout, progress, feedback)
        else:
            raise ConfigError(f"Unknown backend '{backend}'. Use 'local' or 'celery'.")
        return (result, run.context) if ret_context else result

    def _local_tracer(self, settings: Settings | None) -> Any:
        """The workflow's, or the one that the settings want."""
        return self.tracer if self.tracer is not None else _module("tracing.choosing").of_settings(settings)

    @contextlib.contextmanager
    def _shown(
        self, start_node: str | None, progress: Progress | bool | None
    ) -> Iterator[tuple[Progress | None, Callable[[LocalRun], None]]]:
        """What takes the events of a run here, and what is to be told of the run when it is made."""
        if progress is not True:
            yield progress or None, lambda run: None
            return
        live = _module("terminal.live")
        with live.shown(live.display(self.plan(start_node), ""), "") as display:

            def made(run: LocalRun) -> None:
                display.model.plan_for = functools.partial(run.graphs.plan_for, run.run)

            yield display.feed, made

    def submit(
        self,
        start_node: str | None = None,
        *,
        initial_channel: Mapping[str, Any] | None = None,
        max_steps: int = MAX_STEPS,
        timeout: float | None = None,
        run_id: str | None = None,
        settings: Settings | None = None,
        require_workers: bool = False,
        checkpoint_every: int = 0,
        checkpoint_to: str | os.PathLike[str] | None = None,
    ) -> Run:
        """Starts the workflow on the Celery workers and returns at once.

        Args:
            start_node, initial_channel, max_steps, settings: as in :meth:`execute`.
            checkpoint_every, checkpoint_to: so too; a directory is one of the worker's that takes the checkpoint.
            timeout: seconds after which the run is cancelled, whether or not anybody waits for it.
            run_id: the run's id. A second submit of it returns the run that is there and starts nothing.
            require_workers: raise NoWorkerError if no live worker consumes a queue of the workflow.
        """
        _check_steps(max_steps, checkpoint_every)
        run: Run = _module("distributed").submit(
            self,
            start_node=start_node,
            initial_channel=initial_channel,
            max_steps=max_steps,
            timeout=timeout,
            run_id=run_id,
            settings=settings,
            require_workers=require_workers,
            llm=self.llm,
            scheduling=self.scheduling,
            checkpoint_every=checkpoint_every,
            checkpoint_to=checkpoint_to,
            ship=self.ship,
            tracer=self.tracer,
        )
        return run

    def plan(self, start_node: str | None = None) -> Plan:
        """The checked graph that a run would follow. Raises GraphCompilationError if there is none."""
        return lower(self.graph, self.name, start_node, self.scheduling)

    def to_mermaid(self) -> str:
        """The graph as a Mermaid flowchart."""
        return to_mermaid(self.graph)

    def _repr_html_(self) -> str:
        """What a notebook shows: the graph as a picture, or why there is none."""
        try:
            return to_svg(self.plan())
        except GraphCompilationError as error:
            return f"<pre>{html.escape(f'{self.name}: {error}')}</pre>"

    def to_dot(self) -> str:
        """The graph in Graphviz's language."""
        return to_dot(self.graph, self.name)


def workflow(
    name: str, *, tracer: Any = None, scheduling: str | SchedulingPolicy | None = None, ship: Ship = "auto"
) -> WorkflowContext:
    """A new workflow; ``with workflow("etl") as wf:`` registers what is written inside.

    Args:
        name: how runs, events and errors name it.
        tracer: what follows its runs: ``OpenTelemetryTracer()`` or ``LangfuseTracer()`` of `graflow_celery.tracing`.
            Where there is none the setting ``tracing`` decides.
        scheduling: which of the tasks that are ready goes first: ``"fifo"``, ``"priority"`` or an object with
            ``rank(node)``.
        ship: how the functions of tasks that say nothing of it get to the workers: by name (``"reference"``), whole
            (``"value"``), or by name where that leads to them and else whole (``"auto"``). Local runs send nothing.

    Raises:
        ConfigError: the name is empty, or ``ship`` is none of these.
    """
    if not name:
        raise ConfigError("A workflow needs a name: workflow('etl').")
    check_ship(ship, "workflow")
    return WorkflowContext(name, tracer=tracer, scheduling=scheduling, ship=ship)


def _check_steps(max_steps: int, checkpoint_every: int) -> None:
    if not isinstance(checkpoint_every, int) or checkpoint_every < 0:
        raise ConfigError(f"checkpoint_every={checkpoint_every!r} must be a whole number, or 0 for no checkpoints.")
    if not isinstance(max_steps, int) or max_steps < 1:
        raise ConfigError(f"max_steps={max_steps!r} must be a whole number, 1 or more.")


@functools.cache
def _module(name: str) -> Any:
    """A module of ours, loaded on first use: Celery, Redis and asyncio cost 230 ms that local runs do not owe."""
    return importlib.import_module(f"graflow_celery.{name}")
