"""What a task, and a caller after the run, can ask of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from graflow_celery.core.activation import node_of
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import RunStatus
from graflow_celery.engine.groups import group_result
from graflow_celery.engine.llm import LLMRegistry
from graflow_celery.engine.typed_channel import TypedChannel
from graflow_celery.errors import ConfigError
from graflow_celery.ports import NOTHING, Channel, FeedbackRecord, RunRef, RunStore

Message = TypeVar("Message")


class Checkpoints(Protocol):
    """Keeps what a run has come to. See `engine.checkpoint`."""

    def take(self, metadata: Mapping[str, Any], path: str | None = None) -> tuple[str, Any]: ...


class ExecutionContext:
    """A run's parts in one place: its plan, results, channel and managers. A thin container; it does no I/O by itself.

    Attributes:
        run, plan: which run of which workflow.
        llm: the run's LLM clients and agents.
        checkpoints: keeps what the run has come to; None where nothing does.
        tracer: what follows the run, if anything.
        checkpoint_metadata: what the checkpoint was made with that the run was resumed from.
        last_checkpoint_path: the newest checkpoint that this process took.
    """

    def __init__(
        self,
        run: RunRef,
        plan: Plan,
        store: RunStore,
        channel: Channel,
        *,
        llm: LLMRegistry | None = None,
        checkpoints: Checkpoints | None = None,
        tracer: Any = None,
    ) -> None:
        self.run = run
        self.plan = plan
        self.llm = (llm or LLMRegistry()).scope(self)
        self.checkpoints = checkpoints
        self.tracer = tracer
        self.checkpoint_metadata: Mapping[str, Any] = {}
        self.last_checkpoint_path: str | None = None
        self._store = store
        self._channel = channel

    @property
    def session_id(self) -> str:
        """The run's id, under graflow's name for it."""
        return self.run.id

    @property
    def trace_id(self) -> str:
        return self.run.id

    @property
    def start_node(self) -> str:
        return self.plan.start

    def get_channel(self) -> Channel:
        return self._channel

    def get_typed_channel(self, message_type: type[Message]) -> TypedChannel[Message]:
        """The channel for messages of one type: a TypedDict, a dataclass or a pydantic model."""
        return TypedChannel(self._channel, message_type)

    def get_result(self, node: str, default: Any = None) -> Any:
        """The result of a node, of a group ``{member id: result}``; ``default`` if there is none (yet)."""
        if node in self.plan.nodes and self.plan[node].is_group:
            return group_result(self._store, self.run, self.plan, node)
        return self._store.results(self.run, [node]).get(node, default)

    def feedback(self, request_id: str) -> FeedbackRecord | None:
        """What was asked under an id, with the answer if there is one."""
        return next(iter(self._store.feedback(self.run, [request_id])), None)

    @property
    def llm_client(self) -> Any:
        return self.llm.client()

    def register_llm_agent(self, name: str, agent: Any) -> None:
        self.llm.register_agent(name, agent)

    def get_llm_agent(self, name: str) -> Any:
        return self.llm.agent(name)

    def checkpoint(self, metadata: Mapping[str, Any] | None = None, path: str | None = None) -> tuple[str, Any]:
        """Keeps what the run has come to; returns where, and the checkpoint's metadata."""
        if self.checkpoints is None:
            raise ConfigError("This run has nowhere to keep checkpoints.")
        self.last_checkpoint_path, made = self.checkpoints.take(metadata or {}, path)
        return self.last_checkpoint_path, made


def last_result(context: ExecutionContext, status: RunStatus, last_node: str | None) -> Any:
    """The result of the only node after which nothing follows, if it has one; else of the node that succeeded last."""
    sinks = context.plan.sinks
    if status is RunStatus.SUCCEEDED and len(sinks) == 1:
        found = context.get_result(sinks[0], NOTHING)
        if found is not NOTHING:
            return found
    return None if last_node is None else context.get_result(node_of(last_node))
