"""A task asks a person: what is asked, what is answered, and how the task gives its place up while it waits.

A request parks the node: its code is left, and it runs again from its beginning once there is an answer, which the same
request then returns. So code before a request runs more than once, and requests must come in the same order each time.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from graflow_celery.errors import GraflowRuntimeError
from graflow_celery.ports import FeedbackRecord

DEFAULT_TIMEOUT = 180.0


class FeedbackType(Enum):
    """What kind of answer is wanted."""

    APPROVAL = "approval"
    TEXT = "text"
    SELECTION = "selection"
    MULTI_SELECTION = "multi_selection"
    CUSTOM = "custom"


@dataclass(frozen=True, slots=True)
class FeedbackRequest:
    """What a task asks. ``timeout``: seconds after which the run counts as waiting."""

    feedback_id: str
    task_id: str
    session_id: str
    feedback_type: FeedbackType
    prompt: str
    options: tuple[str, ...] | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = DEFAULT_TIMEOUT
    channel_key: str | None = None
    write_to_channel: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "feedback_type": self.feedback_type.value}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FeedbackRequest:
        options = data.get("options")
        kind = FeedbackType(data["feedback_type"])
        return cls(**{**data, "feedback_type": kind, "options": None if options is None else tuple(options)})


@dataclass(frozen=True, slots=True)
class FeedbackResponse:
    """An answer; the field that belongs to the request's type is set."""

    feedback_id: str
    response_type: FeedbackType
    approved: bool | None = None
    reason: str | None = None
    text: str | None = None
    selected: str | None = None
    selected_multiple: tuple[str, ...] | None = None
    custom_data: Any = None
    responded_by: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "response_type": self.response_type.value}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FeedbackResponse:
        several = data.get("selected_multiple")
        kind = FeedbackType(data["response_type"])
        chosen = None if several is None else tuple(several)
        return cls(**{**data, "response_type": kind, "selected_multiple": chosen})

    @property
    def value(self) -> Any:
        """The answer itself."""
        match self.response_type:
            case FeedbackType.APPROVAL:
                return bool(self.approved)
            case FeedbackType.TEXT:
                return self.text or ""
            case FeedbackType.SELECTION:
                return self.selected
            case FeedbackType.MULTI_SELECTION:
                return list(self.selected_multiple or ())
            case FeedbackType.CUSTOM:
                return self.custom_data


class Parked(BaseException):
    """Leaves a task's code while it waits for a person. No Exception, so that user code does not catch it by chance."""

    def __init__(self, record: FeedbackRecord, timeout: float | None) -> None:
        super().__init__(record.id)
        self.record = record
        self.timeout = timeout


def feedback_id(run_id: str, node: str, cycle: int, number: int) -> str:
    """The id of the ``number``-th request of a node: the same whenever its code runs again."""
    return f"{run_id}-{zlib.crc32(f'{node} {cycle} {number}'.encode()):08x}"


def run_of(feedback: str) -> str:
    """The run that a request belongs to."""
    return feedback.rpartition("-")[0]


def check_response(request: FeedbackRequest, response: FeedbackResponse) -> None:
    """Raises GraflowRuntimeError where an answer does not fit what was asked."""
    if response.response_type is not request.feedback_type:
        raise GraflowRuntimeError(
            f"Request {request.feedback_id} asks for {request.feedback_type.value}, not {response.response_type.value}."
        )
    allowed = request.options or ()
    chosen: Sequence[str | None] = response.selected_multiple or ()
    if response.response_type is FeedbackType.SELECTION:
        chosen = (response.selected,)
    if response.response_type in (FeedbackType.SELECTION, FeedbackType.MULTI_SELECTION):
        unknown = [str(item) for item in chosen if item not in allowed]
        if unknown:
            raise GraflowRuntimeError(
                f"Request {request.feedback_id}: {', '.join(unknown)} is no option; choose from {', '.join(allowed)}."
            )
