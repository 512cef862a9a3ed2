"""Where people answer what tasks asked: the one way in which an answer gets into a run."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from graflow_celery.core.events import FeedbackAnswered
from graflow_celery.engine.feedback import (
    FEEDBACK_EVENTS,
    FeedbackRequest,
    FeedbackResponse,
    FeedbackType,
    Handler,
    tell,
    when,
)
from graflow_celery.engine.runner import Engine
from graflow_celery.errors import FeedbackAnswerError, FeedbackNotFoundError
from graflow_celery.ports import Channel, EventRecord, FeedbackRecord, Outcome, RunRef

logger = logging.getLogger(__name__)

_YES = frozenset({"yes", "y", "true", "approve", "approved", "ok"})
_NO = frozenset({"no", "n", "false", "reject", "rejected"})
_RESPONSE_KEY = "{}.__feedback_response__"


def answer(
    engine: Engine, run: RunRef, channel: Channel, request_id: str, response: FeedbackResponse, at: float
) -> FeedbackResponse:
    """Answers a request: the task that asked it runs again and gets the answer. A run that waits goes on.

    The answer is in the channel, if the request wants it there, before the task runs.

    Args:
        at: when, in seconds since the epoch.

    Returns: the answer as it is kept.

    Raises:
        FeedbackNotFoundError: the run has no such request.
        FeedbackAnswerError: it was answered before; nothing waits for it any more; or the answer does not fit.
    """
    record = find(engine, run, request_id)
    request = FeedbackRequest.of(record)
    if request.response is not None:
        raise _answered(request)
    check_response(request, response)
    kept = replace(response, feedback_id=request_id, responded_at=response.responded_at or when(at))
    plan = engine.graphs.plan_for(run, record.graph)
    event = FeedbackAnswered(record.node, record.attempt, record.id)
    outcome = Outcome(feedback=replace(record, response=kept.to_dict()))
    transition = engine.scheduler.decide(plan, event)
    applied = engine.store.commit(run, transition, outcome)
    if applied.stale:
        raise _refused(engine, run, request_id)
    if request.write_to_channel and request.channel_key:
        channel.set(request.channel_key, kept.value)
        channel.set(_RESPONSE_KEY.format(request.channel_key), kept.to_dict())
    engine.follow(run, plan, applied)
    engine.committed(run, plan, transition, applied)
    return kept


def find(engine: Engine, run: RunRef, request_id: str) -> FeedbackRecord:
    """Raises FeedbackNotFoundError."""
    found = engine.store.feedback(run, [request_id])
    if not found:
        raise FeedbackNotFoundError(request_id)
    return found[0]


def as_response(
    request: FeedbackRequest, value: Any, reason: str | None = None, by: str | None = None
) -> FeedbackResponse:
    """What a value means as an answer: a bool or yes/no, a text, an option or several, anything that JSON can hold.

    Raises:
        FeedbackAnswerError: the value means no answer to what was asked.
    """
    if isinstance(value, FeedbackResponse):
        return replace(value, reason=reason or value.reason, responded_by=by or value.responded_by)
    given = FeedbackResponse(request.feedback_id, request.feedback_type, reason=reason, responded_by=by)
    match request.feedback_type:
        case FeedbackType.APPROVAL:
            return replace(given, approved=_as_bool(request, value))
        case FeedbackType.TEXT:
            return replace(given, text=str(value))
        case FeedbackType.SELECTION:
            return replace(given, selected=str(value))
        case FeedbackType.MULTI_SELECTION:
            several = (value,) if isinstance(value, str) or not isinstance(value, Sequence) else value
            return replace(given, selected_multiple=tuple(str(item) for item in several))
        case FeedbackType.CUSTOM:
            return replace(given, custom_data=value)


def check_response(request: FeedbackRequest, response: FeedbackResponse) -> None:
    """Raises FeedbackAnswerError where an answer does not fit what was asked."""
    asked = request.feedback_id
    if response.response_type is not request.feedback_type:
        wanted, given = request.feedback_type.value, response.response_type.value
        raise FeedbackAnswerError(asked, f"it asks for {_article(wanted)}, not for {_article(given)}")
    if response.response_type is FeedbackType.APPROVAL and response.approved is None:
        raise FeedbackAnswerError(asked, "the answer says neither yes nor no. Set approved=True or approved=False")
    chosen: Sequence[str | None] = ()
    if response.response_type is FeedbackType.SELECTION:
        chosen = (response.selected,)
    elif response.response_type is FeedbackType.MULTI_SELECTION:
        chosen = response.selected_multiple or ()
    allowed = request.options or ()
    unknown = [str(item) for item in chosen if item not in allowed]
    if unknown:
        raise FeedbackAnswerError(asked, f"{', '.join(unknown)} is no option. Choose from: {', '.join(allowed)}")
    try:
        json.dumps(response.to_dict())
    except (TypeError, ValueError) as error:
        raise FeedbackAnswerError(asked, f"JSON cannot hold the answer: {error}") from None


def consult(handler: Handler, record: FeedbackRecord, event: str, give: Callable[[str, Any], object]) -> None:
    """Tells a handler of a request, and gives its answer, if it has one, to ``give``. An unfit answer is logged."""
    if event == "feedback_requested" and record.response is not None:
        return  # it was answered while the event was on its way
    value = tell(handler, record, event)
    if value is None:
        return
    try:
        give(record.id, value)
    except (FeedbackAnswerError, FeedbackNotFoundError) as error:
        logger.warning("%s", error)


def consulted(
    handler: Handler,
    asked: Callable[[Sequence[str] | None], Iterable[FeedbackRecord]],
    give: Callable[[str, Any], object],
    call: Callable[[Callable[[], None]], None],
    progress: Callable[[EventRecord], None] | None = None,
) -> Callable[[EventRecord], None]:
    """What follows a run's events and tells a handler of the requests that they speak of.

    Args:
        asked: finds requests by their ids, or all; ``give`` takes the handler's answer to one.
        call: has a function called in a thread of its own; the handler is called there.
        progress: is called with each event as well.
    """

    def follow(record: EventRecord) -> None:
        if progress is not None:
            progress(record)
        event = str(record["event"])
        if event in FEEDBACK_EVENTS:
            for found in asked([str(record["request"])]):
                call(partial(consult, handler, found, event, give))
        elif event == "run_resumed":  # what was asked before is asked still
            for found in asked(None):
                call(partial(consult, handler, found, "feedback_requested", give))

    return follow


def _as_bool(request: FeedbackRequest, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = re.sub(r"[\s.!]", "", str(value)).lower()
    if word in _YES or word in _NO:
        return word in _YES
    raise FeedbackAnswerError(request.feedback_id, f"it asks for an approval: answer yes or no, not {value!r}")


def _article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind.replace('_', ' ')}"


def _answered(request: FeedbackRequest) -> FeedbackAnswerError:
    given = request.response
    by = f" by {given.responded_by}" if given is not None and given.responded_by else ""
    return FeedbackAnswerError(request.feedback_id, f"it was answered already{by}. The first answer counts")


def _refused(engine: Engine, run: RunRef, request_id: str) -> FeedbackAnswerError:
    """Why the store refused the answer: somebody was faster, or what asked has ended."""
    now = FeedbackRequest.of(find(engine, run, request_id))
    if now.response is not None:
        return _answered(now)
    return FeedbackAnswerError(
        request_id, "nothing waits for the answer any more: the run, or a group in it, has ended"
    )
