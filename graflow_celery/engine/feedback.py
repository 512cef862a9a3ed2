"""A task asks a person: what is asked, what is answered, and how the task gives its place up while it waits.

A request parks the node: its code is left, and it runs again from its beginning once there is an answer, which the same
request then returns. So code before a request runs more than once, and requests must come in the same order each time.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Literal, Protocol

from graflow_celery.errors import FeedbackAnswerError, SerializationError
from graflow_celery.ports import FeedbackRecord

DEFAULT_TIMEOUT = 180.0
FEEDBACK_EVENTS = frozenset({"feedback_requested", "feedback_answered", "feedback_expired"})

logger = logging.getLogger(__name__)


class FeedbackType(Enum):
    """What kind of answer is wanted."""

    APPROVAL = "approval"
    TEXT = "text"
    SELECTION = "selection"
    MULTI_SELECTION = "multi_selection"
    CUSTOM = "custom"


Status = Literal["pending", "completed", "timeout", "cancelled"]


@dataclass(frozen=True, slots=True)
class FeedbackRequest:
    """What a task asks.

    Attributes:
        session_id: the run's id.
        timeout: seconds after which the run counts as waiting; None for never.
        created_at: when it was asked, in ISO 8601.
        status: ``timeout``: nobody answered in time; somebody still may. ``cancelled``: nothing waits for an answer any
            more.
        response: the answer, once there is one.
    """

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
    created_at: str = ""
    status: Status = "pending"
    response: FeedbackResponse | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        response = None if self.response is None else self.response.to_dict()
        return {**asdict(self), "feedback_type": self.feedback_type.value, "response": response}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FeedbackRequest:
        options, response = data.get("options"), data.get("response")
        fields = {
            "feedback_type": FeedbackType(data["feedback_type"]),
            "options": None if options is None else tuple(options),
            "response": None if response is None else FeedbackResponse.from_dict(response),
        }
        return cls(**{**data, **fields})

    @classmethod
    def of(cls, record: FeedbackRecord, *, ended: bool = False) -> FeedbackRequest:
        """What a run has of it. ``ended``: the run has, so that nothing waits for an answer any more."""
        request = cls.from_dict(record.request)
        if record.response is not None:
            return replace(request, status="completed", response=FeedbackResponse.from_dict(record.response))
        if ended:
            return replace(request, status="cancelled")
        return replace(request, status="timeout") if record.expired else request

    @property
    def is_open(self) -> bool:
        """Whether somebody may still answer it."""
        return self.status in ("pending", "timeout")


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
    responded_at: str | None = None
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


def when(at: float) -> str:
    """A time, in seconds since the epoch, in ISO 8601."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


class Parked(BaseException):
    """Leaves a task's code while it waits for a person. No Exception, so that user code does not catch it by chance."""

    def __init__(self, record: FeedbackRecord, timeout: float | None) -> None:
        super().__init__(record.id)
        self.record = record
        self.timeout = timeout


def feedback_id(run_id: str, node: str, cycle: int, number: int) -> str:
    """The id of the ``number``-th request of a node: the same whenever its code runs again."""
    return f"{run_id}-{hashlib.blake2b(f'{node} {cycle} {number}'.encode(), digest_size=6).hexdigest()}"


def record_of(request: FeedbackRequest, node: str, attempt: int, graph: str) -> FeedbackRecord:
    """What a run keeps of a request. Raises SerializationError where JSON cannot hold it."""
    asked = request.to_dict()
    try:
        json.dumps(asked)
    except (TypeError, ValueError) as error:
        raise SerializationError(f"request for feedback of task '{request.task_id}'", str(error)) from None
    return FeedbackRecord(request.feedback_id, node, attempt, asked, graph=graph)


def kept(record: FeedbackRecord, kind: FeedbackType) -> FeedbackResponse | None:
    """The answer to a request, if there is one. Raises FeedbackAnswerError if it answers something else."""
    if record.response is None:
        return None
    response = FeedbackResponse.from_dict(record.response)
    if response.response_type is not kind:
        raise FeedbackAnswerError(
            record.id,
            f"the task asks for {kind.value} where it asked for {response.response_type.value} before. A task has to "
            f"ask in the same order each time it runs",
        )
    return response


def requests(records: Iterable[FeedbackRecord], *, ended: bool) -> list[FeedbackRequest]:
    """What a run has of its requests, in the order of the asking."""
    found = [FeedbackRequest.of(record, ended=ended) for record in records]
    return sorted(found, key=lambda request: (request.created_at, request.task_id))


def run_of(feedback: str) -> str:
    """The run that a request belongs to."""
    return feedback.rpartition("-")[0]


class FeedbackHandler:
    """Is told what becomes of requests. Derive from it; what a method raises is logged and changes nothing."""

    def on_request_created(self, request: FeedbackRequest) -> Any:
        """A task asks. What this returns answers the request, unless it is None."""

    def on_response_received(self, request: FeedbackRequest, response: FeedbackResponse) -> None:
        """Somebody answered."""

    def on_request_timeout(self, request: FeedbackRequest) -> None:
        """Nobody answered in time."""


class Ask(Protocol):
    """Answers requests, with a FeedbackResponse or a value that fits what is asked. None leaves it open."""

    def __call__(self, request: FeedbackRequest, /) -> Any: ...


Handler = FeedbackHandler | Ask


def tell(handler: Handler, record: FeedbackRecord, event: str) -> Any:
    """Tells a handler what an event of a run means for a request; returns what it answers, or None.

    A handler may be of any class that has the methods of `FeedbackHandler`. What it raises is logged.
    """
    request = FeedbackRequest.of(record)
    told: Any = handler
    try:
        if event == "feedback_requested":
            return getattr(told, "on_request_created", told)(request)
        if event == "feedback_answered" and hasattr(told, "on_response_received"):
            told.on_response_received(request, request.response)
        elif event == "feedback_expired" and hasattr(told, "on_request_timeout"):
            told.on_request_timeout(request)
    except Exception:  # boundary: handlers are user code
        logger.exception("request %s: its handler failed; the request stays as it is", record.id)
    return None
