"""graflow_celery: pipelines written as ``fetch >> (clean | profile) >> publish``, run in threads or on Celery workers.

Every public name is importable from here. Names are loaded when they are first used: this module itself loads neither
celery nor redis.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graflow_celery.celery_backend.retrying import RetryReport as RetryReport
    from graflow_celery.core.expr import Executable as Executable
    from graflow_celery.core.expr import ParallelGroup as ParallelGroup
    from graflow_celery.core.expr import SequentialTask as SequentialTask
    from graflow_celery.core.expr import chain as chain
    from graflow_celery.core.expr import parallel as parallel
    from graflow_celery.core.graph import TaskGraph as TaskGraph
    from graflow_celery.core.mapping import MappedTask as MappedTask
    from graflow_celery.core.policy import AtLeastNGroupPolicy as AtLeastNGroupPolicy
    from graflow_celery.core.policy import BestEffortGroupPolicy as BestEffortGroupPolicy
    from graflow_celery.core.policy import CriticalGroupPolicy as CriticalGroupPolicy
    from graflow_celery.core.policy import FifoPolicy as FifoPolicy
    from graflow_celery.core.policy import GroupExecutionPolicy as GroupExecutionPolicy
    from graflow_celery.core.policy import GroupPolicy as GroupPolicy
    from graflow_celery.core.policy import PriorityPolicy as PriorityPolicy
    from graflow_celery.core.policy import SchedulingPolicy as SchedulingPolicy
    from graflow_celery.core.policy import StrictGroupPolicy as StrictGroupPolicy
    from graflow_celery.core.retry import RetryPolicy as RetryPolicy
    from graflow_celery.core.scheduler import Scheduler as Scheduler
    from graflow_celery.core.state import RunStatus as RunStatus
    from graflow_celery.core.task import Task as Task
    from graflow_celery.core.task import TaskWrapper as TaskWrapper
    from graflow_celery.core.task import task as task
    from graflow_celery.engine.checkpoint import CheckpointMetadata as CheckpointMetadata
    from graflow_celery.engine.context import ExecutionContext as ExecutionContext
    from graflow_celery.engine.explanation import Explanation as Explanation
    from graflow_celery.engine.feedback import FeedbackHandler as FeedbackHandler
    from graflow_celery.engine.feedback import FeedbackRequest as FeedbackRequest
    from graflow_celery.engine.feedback import FeedbackResponse as FeedbackResponse
    from graflow_celery.engine.feedback import FeedbackType as FeedbackType
    from graflow_celery.engine.llm import LLMAgent as LLMAgent
    from graflow_celery.engine.llm import LLMRegistry as LLMRegistry
    from graflow_celery.engine.llm_client import LLMClient as LLMClient
    from graflow_celery.engine.navigator import GraphNavigator as GraphNavigator
    from graflow_celery.engine.task_context import IdempotencyKey as IdempotencyKey
    from graflow_celery.engine.task_context import TaskExecutionContext as TaskExecutionContext
    from graflow_celery.engine.typed_channel import TypedChannel as TypedChannel
    from graflow_celery.errors import ChannelLockTimeoutError as ChannelLockTimeoutError
    from graflow_celery.errors import CheckpointError as CheckpointError
    from graflow_celery.errors import ConfigError as ConfigError
    from graflow_celery.errors import CycleLimitExceededError as CycleLimitExceededError
    from graflow_celery.errors import DuplicateTaskError as DuplicateTaskError
    from graflow_celery.errors import FeedbackAnswerError as FeedbackAnswerError
    from graflow_celery.errors import FeedbackNotFoundError as FeedbackNotFoundError
    from graflow_celery.errors import FeedbackTimeoutError as FeedbackTimeoutError
    from graflow_celery.errors import GraflowError as GraflowError
    from graflow_celery.errors import GraflowRuntimeError as GraflowRuntimeError
    from graflow_celery.errors import GraflowWorkflowCanceledError as GraflowWorkflowCanceledError
    from graflow_celery.errors import GraphCompilationError as GraphCompilationError
    from graflow_celery.errors import NoWorkerError as NoWorkerError
    from graflow_celery.errors import ParallelGroupError as ParallelGroupError
    from graflow_celery.errors import RetryLimitExceededError as RetryLimitExceededError
    from graflow_celery.errors import RetryRefusedError as RetryRefusedError
    from graflow_celery.errors import RunExistsError as RunExistsError
    from graflow_celery.errors import StoreRefusedError as StoreRefusedError
    from graflow_celery.errors import StoreUnavailableError as StoreUnavailableError
    from graflow_celery.feedback import FeedbackManager as FeedbackManager
    from graflow_celery.feedback import SlackFeedbackHandler as SlackFeedbackHandler
    from graflow_celery.feedback import WebhookFeedbackHandler as WebhookFeedbackHandler
    from graflow_celery.resuming import CheckpointManager as CheckpointManager
    from graflow_celery.resuming import WorkflowEngine as WorkflowEngine
    from graflow_celery.runs import Run as Run
    from graflow_celery.settings import Settings as Settings
    from graflow_celery.workflows import WorkflowContext as WorkflowContext
    from graflow_celery.workflows import workflow as workflow

_HOMES = {
    "core.expr": ("Executable", "ParallelGroup", "SequentialTask", "chain", "parallel"),
    "core.graph": ("TaskGraph",),
    "core.policy": (
        "AtLeastNGroupPolicy",
        "BestEffortGroupPolicy",
        "CriticalGroupPolicy",
        "FifoPolicy",
        "GroupExecutionPolicy",
        "GroupPolicy",
        "PriorityPolicy",
        "SchedulingPolicy",
        "StrictGroupPolicy",
    ),
    "core.retry": ("RetryPolicy",),
    "core.scheduler": ("Scheduler",),
    "core.state": ("RunStatus",),
    "core.task": ("Task", "TaskWrapper", "task"),
    "celery_backend.retrying": ("RetryReport",),
    "runs": ("Run",),
    "core.mapping": ("MappedTask",),
    "engine.checkpoint": ("CheckpointMetadata",),
    "engine.context": ("ExecutionContext",),
    "engine.explanation": ("Explanation",),
    "engine.feedback": ("FeedbackHandler", "FeedbackRequest", "FeedbackResponse", "FeedbackType"),
    "engine.llm": ("LLMAgent", "LLMRegistry"),
    "engine.llm_client": ("LLMClient",),
    "engine.navigator": ("GraphNavigator",),
    "engine.task_context": ("IdempotencyKey", "TaskExecutionContext"),
    "engine.typed_channel": ("TypedChannel",),
    "errors": (
        "ChannelLockTimeoutError",
        "CheckpointError",
        "ConfigError",
        "CycleLimitExceededError",
        "DuplicateTaskError",
        "FeedbackAnswerError",
        "FeedbackNotFoundError",
        "FeedbackTimeoutError",
        "GraflowError",
        "GraflowRuntimeError",
        "GraflowWorkflowCanceledError",
        "GraphCompilationError",
        "NoWorkerError",
        "ParallelGroupError",
        "RetryLimitExceededError",
        "StoreRefusedError",
        "RetryRefusedError",
        "RunExistsError",
        "StoreUnavailableError",
    ),
    "feedback": ("FeedbackManager", "SlackFeedbackHandler", "WebhookFeedbackHandler"),
    "resuming": ("CheckpointManager", "WorkflowEngine"),
    "settings": ("Settings",),
    "workflows": ("WorkflowContext", "workflow"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [*sorted(_HOME_OF)]  # noqa: PLE0604 - the names are strings from the table above


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'graflow_celery' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"graflow_celery.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
