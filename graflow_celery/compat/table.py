"""graflow 0.2.0's modules and names: where ours are, and what is refused and why.

A home that this version does not have yet stands here all the same; asking for it says so.
"""

from __future__ import annotations

from collections.abc import Mapping

Homes = Mapping[str, str]


def _in(module: str, *names: str) -> dict[str, str]:
    home = f"graflow_celery.{module}" if module else "graflow_celery"
    return {name: f"{home}.{name}" for name in names}


def _public(*names: str) -> dict[str, str]:
    return _in("", *names)


_EXCEPTIONS = _in(
    "errors",
    "ConfigError",
    "CycleLimitExceededError",
    "DuplicateTaskError",
    "GraflowError",
    "GraflowRuntimeError",
    "GraflowWorkflowCanceledError",
    "GraphCompilationError",
    "ParallelGroupError",
    "RetryLimitExceededError",
    "TaskError",
)
_AGENT = _in("engine.llm", "LLMAgent")
_CLIENT = _in("engine.llm_client", "LLMClient", "extract_text", "make_message")
_LANGFUSE = {"LangFuseTracer": "graflow_celery.tracing.LangfuseTracer"}
_CONTEXTS = _public("ExecutionContext", "TaskExecutionContext")

#: Module of graflow -> its names -> where they are here. Modules with submodules only have no names.
MODULES: Mapping[str, Homes] = {
    "graflow": _public("RetryPolicy", "TaskExecutionContext", "chain", "parallel", "task", "workflow"),
    "graflow.channels": {},
    "graflow.channels.base": _in("ports", "Channel"),
    "graflow.channels.typed": _in("engine.typed_channel", "TypedChannel"),
    "graflow.coordination": {},
    "graflow.coordination.coordinator": _in("compat.names", "CoordinationBackend"),
    "graflow.core": {},
    "graflow.core.checkpoint": _public("CheckpointManager", "CheckpointMetadata"),
    "graflow.core.context": _CONTEXTS,
    "graflow.core.decorators": _public("task"),
    "graflow.core.engine": _public("WorkflowEngine"),
    "graflow.core.graph": _public("TaskGraph"),
    "graflow.core.handler": _in("core.policy", "TaskResult"),
    "graflow.core.handlers": {},
    "graflow.core.handlers.group_policy": _in(
        "core.policy",
        "AtLeastNGroupPolicy",
        "BestEffortGroupPolicy",
        "CriticalGroupPolicy",
        "GroupExecutionPolicy",
        "StrictGroupPolicy",
    ),
    "graflow.core.retry": _in("core.retry", "RetryPolicy"),
    "graflow.core.task": _public(
        "Executable", "ParallelGroup", "SequentialTask", "Task", "TaskWrapper", "chain", "parallel"
    ),
    "graflow.core.workflow": _public("WorkflowContext", "workflow")
    | _in(
        "compat.names",
        "LLMAgentFactory",
        "LLMAgentProvider",
        "get_current_workflow_context",
        "require_workflow_context",
    ),
    "graflow.exceptions": _EXCEPTIONS,
    "graflow.hitl": {},
    "graflow.hitl.handler": _public("FeedbackHandler", "SlackFeedbackHandler", "WebhookFeedbackHandler"),
    "graflow.hitl.manager": _public("FeedbackManager"),
    "graflow.hitl.types": _public("FeedbackTimeoutError")
    | _in("engine.feedback", "FeedbackRequest", "FeedbackResponse", "FeedbackType"),
    "graflow.llm": _AGENT | _CLIENT,
    "graflow.llm.agents": _AGENT,
    "graflow.llm.agents.base": _AGENT,
    "graflow.llm.agents.types": _in("compat.names", "AgentResult", "AgentStep"),
    "graflow.llm.client": _CLIENT,
    "graflow.trace": _LANGFUSE,
    "graflow.trace.base": {},
    "graflow.trace.console": {},
    "graflow.trace.langfuse": _LANGFUSE,
    "graflow.trace.noop": {},
}

_OWN_AGENT = "agents of one framework are out of scope. Register any object with run(...), or a factory of one."
_CHANNEL = "a run's channel is made for it; context.get_channel() returns it, on every backend."
_CELERY = "Celery sends and runs the tasks here: wf.execute(backend='celery') and `celery -A graflow_celery worker`."
_COUNTED = "the Scheduler counts for itself: @task(max_cycles=..., retry_policy=...), context.cycle_count, retry_count."
_POLICY = "policies are passed as they are: with_execution(policy=AtLeastNGroupPolicy(2)) or 'best_effort'."
_HANDLER = "tasks run in the worker itself; there are no other handlers. Choose the machine with @task(queue=...)."
_CURRENT = "a workflow is current inside its `with` block and nowhere else: with workflow('name') as wf: ..."
_DRAW = "draw with wf.to_mermaid(), wf.to_dot() or `graflow-celery graph`."
_CONSOLE = "a run's events can be printed as they happen: wf.execute(progress=print), `graflow-celery watch`."
_NOOP = "a run is not traced unless a tracer is named: leave tracer= out."
_TRACER = "tracers stand on OpenTelemetry: its span processors and exporters see every span."
_PROMPTS = "prompts are out of scope. Read them with a template library of your choice inside the task."

#: Names of the modules above that are refused, and why.
REFUSED_NAMES: Mapping[str, str] = {
    "graflow.channels.typed.ChannelTypeRegistry": "pass the type itself: context.get_typed_channel(YourTypedDict).",
    "graflow.coordination.coordinator.TaskCoordinator": _CELERY,
    "graflow.core.context.create_execution_context": "write a workflow and execute it: wf.execute(ret_context=True).",
    "graflow.core.context.execute_with_cycles": "write a workflow and execute it: wf.execute().",
    "graflow.core.handler.TaskHandler": _HANDLER,
    "graflow.core.handlers.group_policy.POLICY_REGISTRY": _POLICY,
    "graflow.core.handlers.group_policy.canonicalize_group_policy": _POLICY,
    "graflow.core.handlers.group_policy.resolve_group_policy": _POLICY,
    "graflow.core.retry.RetryController": _COUNTED,
    "graflow.core.workflow.clear_workflow_context": _CURRENT,
    "graflow.core.workflow.current_workflow_context": _CURRENT,
    "graflow.core.workflow.set_current_workflow_context": _CURRENT,
    "graflow.exceptions.as_runtime_error": "errors keep their own type here; raise them as they are.",
    "graflow.llm.AdkLLMAgent": _OWN_AGENT,
    "graflow.llm.PydanticLLMAgent": _OWN_AGENT,
    "graflow.llm.agent_to_yaml": "agents travel as their factories: wf.register_llm_agent('name', factory).",
    "graflow.llm.agents.AdkLLMAgent": _OWN_AGENT,
    "graflow.llm.agents.PydanticLLMAgent": _OWN_AGENT,
    "graflow.llm.agents.create_pydantic_ai_agent": _OWN_AGENT,
    "graflow.llm.agents.create_pydantic_ai_agent_with_litellm": _OWN_AGENT,
    "graflow.llm.client.setup_langfuse_for_litellm": "set LiteLLM's own: litellm.callbacks = ['langfuse_otel'].",
    "graflow.llm.create_pydantic_ai_agent": _OWN_AGENT,
    "graflow.llm.yaml_to_agent": "agents travel as their factories: wf.register_llm_agent('name', factory).",
    "graflow.trace.ConsoleTracer": _CONSOLE,
    "graflow.trace.NoopTracer": _NOOP,
    "graflow.trace.Tracer": _TRACER,
    "graflow.trace.base.Tracer": _TRACER,
    "graflow.trace.console.ConsoleTracer": _CONSOLE,
    "graflow.trace.noop.NoopTracer": _NOOP,
}

#: Modules that are refused with all below them, and why.
REFUSED_MODULES: Mapping[str, str] = {
    "graflow.api": "the web server for feedback is out of scope; FeedbackManager.provide_feedback answers a request.",
    "graflow.channels.factory": _CHANNEL,
    "graflow.channels.memory_channel": _CHANNEL,
    "graflow.channels.redis_channel": _CHANNEL,
    "graflow.channels.schemas": "write messages as a TypedDict of your own: context.get_typed_channel(YourTypedDict).",
    "graflow.coordination.executor": _CELERY,
    "graflow.coordination.graph_store": _CELERY,
    "graflow.coordination.records": _CELERY,
    "graflow.coordination.redis_coordinator": _CELERY,
    "graflow.coordination.task_spec": _CELERY,
    "graflow.coordination.threading_coordinator": _CELERY,
    "graflow.core.cycle": _COUNTED,
    "graflow.core.handlers.direct": _HANDLER,
    "graflow.core.handlers.docker": f"Docker is out of scope: {_HANDLER}",
    "graflow.core.handlers.templates": f"Docker is out of scope: {_HANDLER}",
    "graflow.core.serialization": "values and functions are sent by the engine; pickle your own with cloudpickle.",
    "graflow.debug": "what cannot be sent is named by the SerializationError of wf.submit().",
    "graflow.hitl.backend": "requests for feedback are in the run's store; FeedbackManager reads and answers them.",
    "graflow.llm.agents.adk_agent": f"Google ADK is out of scope: {_OWN_AGENT}",
    "graflow.llm.agents.pydantic_agent": _OWN_AGENT,
    "graflow.llm.serialization": "agents travel as their factories: wf.register_llm_agent('name', factory).",
    "graflow.prompts": _PROMPTS,
    "graflow.queue": _CELERY,
    "graflow.utils": f"graflow's internals are not offered. To show a graph, {_DRAW}",
    "graflow.worker": _CELERY,
}
