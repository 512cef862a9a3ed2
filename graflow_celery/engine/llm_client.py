"""A thin client over LiteLLM. Nothing here imports LiteLLM before the first completion.

Keys of providers come from the environment of the process that asks (``OPENAI_API_KEY`` and the like), never from the
workflow: what a workflow holds travels to the workers. LiteLLM fetches its table of prices when it is imported; where
workers have no way out, set ``LITELLM_LOCAL_MODEL_COST_MAP=True`` for them.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from graflow_celery.engine.observing import observed
from graflow_celery.errors import ConfigError, ExtraMissingError

#: Where the model of a client that names none comes from. The second is graflow's name for it.
MODEL_VARIABLES = ("GRAFLOW_CELERY_LLM_MODEL", "GRAFLOW_LLM_MODEL")

Message = Mapping[str, Any]

_SECRETS = frozenset(
    {
        "api_key",
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
        "azure_ad_token",
        "vertex_credentials",
    }
)


class LLMClient:
    """Asks language models. Holds a model's name and default parameters, and so can be shared and pickled.

    Attributes:
        default_params: what each completion is called with, unless the call says otherwise.
    """

    def __init__(self, model: str | None = None, *, enable_tracing: bool = False, **default_params: Any) -> None:
        """
        Args:
            model: LiteLLM's name of the model; by default that of the environment, read at each call.
            enable_tracing: graflow's switch, which only ``False`` is taken for.
            **default_params: for ``litellm.completion``, such as ``temperature``.

        Raises:
            ConfigError: a parameter is a secret, or tracing was asked for.
        """
        secrets = sorted(_SECRETS.intersection(default_params))
        if secrets:
            raise ConfigError(
                f"LLMClient: {secrets[0]} is a secret and would travel with the workflow. Set it in the environment "
                f"of the processes that run the tasks, under the provider's own name (OPENAI_API_KEY, ...)."
            )
        if enable_tracing:
            raise ConfigError(
                "LLMClient: enable_tracing is not there. The calls of a workflow that is traced are: "
                "workflow(..., tracer=LangfuseTracer())."
            )
        self._model = model
        self.default_params = default_params

    @property
    def model(self) -> str:
        """The model of a call that names none.

        Raises:
            ConfigError: neither the client nor the environment names one.
        """
        named = (os.environ.get(variable) for variable in MODEL_VARIABLES)
        model = self._model or next(filter(None, named), None)
        if model is None:
            raise ConfigError(
                f"No model to ask: LLMClient(model=...), completion(..., model=...) or {MODEL_VARIABLES[0]} names it."
            )
        return model

    def completion(
        self,
        messages: Sequence[Message],
        model: str | None = None,
        generation_name: str | None = None,
        tags: Sequence[str] | None = None,
        **params: Any,
    ) -> Any:
        """LiteLLM's response to a chat.

        Args:
            messages: ``{"role": ..., "content": ...}`` each; see :func:`make_message`.
            model: another model than the client's.
            generation_name, tags: metadata for whatever traces LiteLLM's calls.
            **params: for ``litellm.completion``; over the client's own.

        Raises:
            ExtraMissingError: LiteLLM is not installed here.
            ConfigError: no model is named.
            Exception: LiteLLM's own errors, as they come.
        """
        arguments = {**self.default_params, **params}
        labels: dict[str, Any] = {}
        if generation_name:
            labels["generation_name"] = generation_name
        if tags:
            labels["tags"] = list(tags)
        if labels:
            arguments["metadata"] = {**arguments.get("metadata", {}), **labels}
        chosen = model or self.model
        asked = [dict(message) for message in messages]
        given = {"model": chosen, "messages": asked, "parameters": arguments}
        call = partial(_litellm().completion, model=chosen, messages=asked, **arguments)
        return observed("generation", generation_name or f"chat {chosen}", given, call)

    def completion_text(self, messages: Sequence[Message], **params: Any) -> str:
        """The text of :meth:`completion`'s first choice, empty if it has none."""
        return extract_text(self.completion(messages, **params))

    def __repr__(self) -> str:
        return f"LLMClient({self._model or 'model of the environment'})"


def extract_text(response: Any) -> str:
    """The text of a response's first choice, empty if it has none."""
    choices = getattr(response, "choices", None)
    message = getattr(choices[0], "message", None) if choices else None
    return getattr(message, "content", None) or ""


def make_message(role: str, content: str) -> dict[str, str]:
    """A chat message."""
    return {"role": role, "content": content}


def _litellm() -> Any:
    try:
        return importlib.import_module("litellm")
    except ModuleNotFoundError as error:
        if error.name != "litellm":
            raise
        raise ExtraMissingError("litellm", "llm") from error
