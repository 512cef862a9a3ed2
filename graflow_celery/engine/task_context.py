"""What ``@task(inject_context=True)`` passes as the first argument."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from graflow_celery.core.state import Applied
from graflow_celery.engine.context import ExecutionContext
from graflow_celery.engine.feedback import (
    DEFAULT_TIMEOUT,
    FeedbackHandler,
    FeedbackRequest,
    FeedbackResponse,
    FeedbackType,
    Parked,
    feedback_id,
    kept,
    record_of,
    tell,
    when,
)
from graflow_celery.engine.navigator import GraphNavigator
from graflow_celery.engine.typed_channel import TypedChannel
from graflow_celery.errors import GraflowError
from graflow_celery.ports import Channel, Clock

Message = TypeVar("Message")

logger = logging.getLogger(__name__)


class IdempotencyKey(NamedTuple):
    """Names what runs, for side effects that must not happen twice: a task's code may run more than once.

    As text, ``"run:node:attempt"``, it is the same for every run of one attempt's code. ``once`` is the same for every
    attempt as well: retries, attempts whose process died, retries of the run. ``node`` names the pass or the member
    too, where a node has several: ``"clean@1~4"``, ``"score[17]"``.
    """

    run: str
    node: str
    attempt: int

    @property
    def once(self) -> str:
        """``"run:node"``: for what must happen once, however often the task is attempted."""
        return f"{self.run}:{self.node}"

    def __str__(self) -> str:
        return f"{self.once}:{self.attempt}"


class TaskExecutionContext:
    """What ``@task(inject_context=True)`` passes as the first argument."""

    def __init__(
        self,
        context: ExecutionContext,
        navigator: GraphNavigator,
        retry_count: int,
        clock: Clock,
        wall: Clock = time.time,
    ) -> None:
        self.execution_context = context
        self.navigator = navigator
        self.retry_count = retry_count
        self.local_data: dict[str, Any] = {}
        self._clock = clock
        self._wall = wall
        self._began = clock()
        self._asked = 0
        self._checkpoint: tuple[Mapping[str, Any], str | None] | None = None

    @property
    def task_id(self) -> str:
        return self.navigator.place.spec.id

    @property
    def attempt(self) -> int:
        return self.navigator.attempt

    @property
    def session_id(self) -> str:
        return self.execution_context.session_id

    @property
    def trace_id(self) -> str:
        return self.execution_context.trace_id

    @property
    def max_retries(self) -> int:
        return self.navigator.place.spec.options.retries

    @property
    def cycle_count(self) -> int:
        """How often the task runs in this run, this time included; retries don't count."""
        return self.navigator.cycle + 1

    @property
    def max_cycles(self) -> int:
        return self.navigator.max_cycles

    def can_iterate(self) -> bool:
        return self.cycle_count < self.max_cycles

    @property
    def idempotency_key(self) -> IdempotencyKey:
        """Run, node and attempt: for side effects that must not happen twice, since the code may run more than once."""
        return IdempotencyKey(self.session_id, self.navigator.node, self.attempt)

    @property
    def llm_client(self) -> Any:
        return self.execution_context.llm_client

    def get_llm_agent(self, name: str) -> Any:
        return self.execution_context.get_llm_agent(name)

    def register_llm_agent(self, name: str, agent: Any) -> None:
        self.execution_context.register_llm_agent(name, agent)

    def get_channel(self) -> Channel:
        return self.execution_context.get_channel()

    def get_typed_channel(self, message_type: type[Message]) -> TypedChannel[Message]:
        """See :meth:`ExecutionContext.get_typed_channel`."""
        return self.execution_context.get_typed_channel(message_type)

    def get_result(self, node: str, default: Any = None) -> Any:
        return self.execution_context.get_result(node, default)

    def set_local_data(self, key: str, value: Any) -> None:
        """Notes something for this attempt alone."""
        self.local_data[key] = value

    def get_local_data(self, key: str, default: Any = None) -> Any:
        return self.local_data.get(key, default)

    def elapsed_time(self) -> float:
        """Seconds since the attempt began."""
        return self._clock() - self._began

    def next_task(self, executable: Any, goto: bool = False) -> str:
        """See :meth:`GraphNavigator.next_task`."""
        return self.navigator.next_task(executable, goto)

    def next_iteration(self, data: Any = None) -> str:
        """See :meth:`GraphNavigator.next_iteration`."""
        return self.navigator.next_iteration(data)

    def terminate_workflow(self, message: str = "") -> None:
        """Ends the run as done when this task has ended: nothing of it starts any more, this task's result counts."""
        self.navigator.terminate_workflow(message)

    def cancel_workflow(self, message: str = "") -> None:
        """Ends the run as cancelled when this task has ended; ``execute`` raises GraflowWorkflowCanceledError."""
        self.navigator.cancel_workflow(message)

    def checkpoint(
        self, metadata: Mapping[str, Any] | None = None, *, path: str | None = None, deferred: bool = True
    ) -> tuple[str, Any] | None:
        """Keeps what the run has come to when this task has ended; now, without it, if not ``deferred``."""
        enriched = {
            "task_id": self.task_id,
            "cycle_count": self.cycle_count,
            "elapsed_time": self.elapsed_time(),
            "mode": "deferred" if deferred else "immediate",
            **(metadata or {}),
        }
        if not deferred:
            return self.execution_context.checkpoint(enriched, path)
        self._checkpoint = (enriched, path)
        return None

    def after_commit(self, applied: Applied) -> None:
        """For the engine: the outcome of this attempt was committed. It counts, whatever becomes of the checkpoint."""
        if applied.stale or self._checkpoint is None:
            return
        try:
            self.execution_context.checkpoint(*self._checkpoint)
        except (GraflowError, OSError) as error:
            logger.warning("run %s: no checkpoint after task '%s': %s", self.session_id, self.task_id, error)

    def request_feedback(
        self,
        feedback_type: str | FeedbackType,
        prompt: str,
        options: Sequence[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        channel_key: str | None = None,
        write_to_channel: bool = False,
        handler: FeedbackHandler | None = None,
    ) -> FeedbackResponse:
        """Asks a person. The task's code is left here, and runs again from its beginning when there is an answer.

        Args:
            feedback_type: what kind of answer: ``"approval"``, ``"text"``, ``"selection"``, ``"multi_selection"``,
                ``"custom"``.
            timeout: seconds after which the run's status is ``waiting``; an answer still lets it go on.
            channel_key, write_to_channel: put the answer into the channel as well, before the task runs again.
            handler: is told here, where the task runs, that it asks.

        Raises:
            ValueError: there is no such type.
            FeedbackAnswerError: the task asked something else before, and that was answered.
            SerializationError: JSON cannot hold the request.
        """
        kind = feedback_type if isinstance(feedback_type, FeedbackType) else FeedbackType(feedback_type)
        self._asked += 1
        navigator = self.navigator
        asked = feedback_id(self.session_id, navigator.node, navigator.cycle, self._asked)
        found = self.execution_context.feedback(asked)
        response = None if found is None else kept(found, kind)
        if response is not None:
            return response
        request = FeedbackRequest(
            asked,
            self.task_id,
            self.session_id,
            kind,
            prompt,
            None if options is None else tuple(options),
            dict(metadata or {}),
            timeout,
            channel_key,
            write_to_channel,
            when(self._wall()),
        )
        # The attempt that asks is over: it is the next one's number that an answer has to name.
        record = record_of(request, navigator.node, self.attempt + 1, navigator.place.graph)
        if handler is not None and found is None:
            tell(handler, record, "feedback_requested")
        raise Parked(record, timeout)

    def request_approval(self, prompt: str, **options: Any) -> bool:
        """True if a person agreed. ``options``: those of :meth:`request_feedback`."""
        return bool(self.request_feedback(FeedbackType.APPROVAL, prompt, **options).approved)

    def request_text_input(self, prompt: str, **options: Any) -> str:
        return self.request_feedback(FeedbackType.TEXT, prompt, **options).text or ""

    def request_selection(self, prompt: str, options: Sequence[str], **more: Any) -> str:
        return self.request_feedback(FeedbackType.SELECTION, prompt, options, **more).selected or ""
