"""What a call to a model says of itself, told apart from what is nobody's business."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

#: Parameters of a completion that a trace may hold. Others may be secrets.
SHOWN = frozenset(
    {
        "frequency_penalty",
        "max_completion_tokens",
        "max_tokens",
        "n",
        "presence_penalty",
        "reasoning_effort",
        "seed",
        "temperature",
        "top_k",
        "top_p",
    }
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model answered: which one, with how many tokens, at which cost in US dollars, as far as it says."""

    model: str = ""
    text: str = ""
    tokens: Mapping[str, int] = field(default_factory=dict)
    cost: float | None = None

    @classmethod
    def of(cls, response: Any) -> Answer:
        usage, hidden = getattr(response, "usage", None), getattr(response, "_hidden_params", None)
        names = {"input": "prompt_tokens", "output": "completion_tokens", "total": "total_tokens"}
        counts = {name: getattr(usage, given, None) for name, given in names.items()}
        cost = hidden.get("response_cost") if isinstance(hidden, Mapping) else None
        choices = getattr(response, "choices", None)
        message = getattr(choices[0], "message", None) if choices else None
        model, text = getattr(response, "model", None), getattr(message, "content", None)
        return cls(
            model if isinstance(model, str) else "",
            text if isinstance(text, str) else "",
            {name: count for name, count in counts.items() if isinstance(count, int)},
            float(cost) if isinstance(cost, int | float) else None,
        )


def shown(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Of a completion's parameters, those that a trace may hold."""
    kinds = (int, float, str)
    return {name: value for name, value in parameters.items() if name in SHOWN and isinstance(value, kinds)}


def traced_by_litellm() -> bool:
    """Whether LiteLLM's own callbacks trace its calls in this process: then they are not traced once more."""
    callbacks = getattr(sys.modules.get("litellm"), "callbacks", None) or ()
    return any("otel" in item or item == "langfuse" for item in callbacks if isinstance(item, str))
