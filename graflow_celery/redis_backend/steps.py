"""Steps of a run as `lua/advance.lua` takes them, and what it answers."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from graflow_celery.core.activation import item_of, node_of
from graflow_celery.core.commands import to_text
from graflow_celery.core.state import STALE, Applied, Leave, RunStatus, Transition
from graflow_celery.errors import BlobMissingError, BlobRejectedError, SerializationError
from graflow_celery.ports import NOTHING, Answer, Asked, Begun, Change, Forms, Outcome, RunRef, Step
from graflow_celery.redis_backend.lifetimes import Lifetimes
from graflow_celery.redis_backend.values import ValueStore
from graflow_celery.redis_backend.wire import chosen, error_record, of_outcome, packed_value, to_wire

#: Where in the script's arguments those begin that steps refer to.
FIRST = 9

_encode = json.JSONEncoder(separators=(",", ":")).encode
logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Packed:
    """A transition as a JSON object without its closing brace, and what of it is bytes: by the field that will say
    where it is."""

    text: str
    parts: dict[str, list[str | bytes]] = field(default_factory=dict)


def packed(
    values: ValueStore,
    transition: Transition,
    outcome: Outcome,
    forms: Forms | None = None,
    more: Mapping[str, Any] | None = None,
) -> Packed:
    """A transition with its outcome.

    Args:
        forms: where the form of this transition is kept that is the same for each outcome.
        more: further fields that the script is told.

    Raises:
        SerializationError: the outcome cannot be stored.
    """
    text = None if forms is None else forms.get(transition.event)
    if text is None:
        text = _encode(to_wire(transition))[:-1]
        if forms is not None:
            forms[transition.event] = text
    told = of_outcome(outcome)
    if more:
        told |= more
    made = Packed(f"{text},{_encode(told)[1:-1]}" if told else text)
    if outcome.value is not NOTHING:
        made.parts["value"] = [packed_value(values, outcome.value, f"result of task '{transition.node}'")]
    if outcome.error is not None:
        made.parts["error"] = [error_record(outcome.error, values.codec)]
    if outcome.input is not NOTHING:
        what = f"what '{transition.node}' hands on to its next iteration"
        made.parts["given"] = [packed_value(values, outcome.input, what)]
    if outcome.feedback is not None:
        made.parts["asked"] = [outcome.feedback.id, json.dumps(asdict(outcome.feedback))]
    return made


def arguments(steps: Sequence[Step], lifetimes: Lifetimes, events: bool) -> tuple[list[Any], list[str]]:
    """The script's arguments for some steps, and the names whose values it looks up."""
    parts: list[str | bytes] = []
    texts: list[str] = []
    names: dict[str, None] = {}
    holder = ""
    for step in steps:
        if isinstance(step, Asked):
            texts.append(_asked(step))
            names |= dict.fromkeys(step.names)
            holder = step.attempt.holder or step.attempt.worker
            continue
        text = step.kept.text
        for name, found in step.kept.parts.items():
            text = f'{text},"{name}":{FIRST + len(parts)}'
            parts += found
        texts.append(text + "}")
    return [
        int(lifetimes.grace * 1000),
        lifetimes.run_ttl,
        lifetimes.result_ttl,
        int(lifetimes.patience * 1000),
        "1" if events else "",
        holder,
        f"[{','.join(texts)}]",
        _encode(list(names)),
        *parts,
    ], list(names)


def _asked(step: Asked) -> str:
    if step.forms is None:
        return _encode(_question(step))
    key = (step.reached, step.renews, step.returns, step.answers is None)
    text = step.forms.get(key)
    if text is None:
        text = step.forms[key] = _encode(_question(step))
    return text


def _question(step: Asked) -> dict[str, Any]:
    attempt = step.attempt
    wire: dict[str, Any] = {"begin": attempt.node, "attempt": attempt.number}
    node = node_of(attempt.node)
    graph = attempt.plan.graph_of(node)
    if step.scopes:
        wire["scopes"] = step.scopes
    if graph:
        wire["graph"] = graph
    # An item of a mapped task, or what the attempt before this one, or another pass, or before a retry, handed on.
    if attempt.number > 1 or attempt.node != node or item_of(node) is not None:
        wire["input"] = True
    if step.renews:
        wire["renews"] = True
    if step.returns:
        wire["returns"] = True
    if step.reached:
        wire["queued"] = True
    if step.answers is not None:
        wire["ack"] = to_text(step.answers)
    return wire


def answers(
    run: RunRef, steps: Sequence[Step], names: Sequence[str], reply: Sequence[Any], values: ValueStore
) -> Iterator[Answer]:
    """What the script says to each step."""
    found = dict(zip(names, reply[len(steps) :], strict=False))
    for step, answer in zip(steps, reply, strict=False):
        if isinstance(step, Change):
            yield applied(run, step.transition, answer)
        else:
            try:
                yield _begun(step, answer, found, values)
            except (BlobMissingError, BlobRejectedError, SerializationError) as error:
                yield error


def _begun(step: Asked, reply: Sequence[Any], found: Mapping[str, bytes | None], values: ValueStore) -> Begun | None:
    attempt = step.attempt
    if reply[0] == 0:
        _tell_if_gone(attempt.run, f"attempt {attempt.number} of node '{attempt.node}' is not run", reply[1])
        return None
    if reply[0] == 2:
        return Begun(leave=Leave(max_steps=reply[1]))
    fields = {name: found_field for name in step.names if (found_field := found[name]) is not None}
    given = NOTHING if reply[3] is None else values.unpack(reply[3], f"input of '{attempt.node}'")
    leave = Leave(reply[1], reply[2], left=None if reply[4] < 0 else reply[4])
    return Begun({name: values.unpack(text, f"value of '{name}'") for name, text in fields.items()}, leave, given)


def applied(run: RunRef, transition: Transition, reply: Sequence[Any]) -> Applied:
    """What the script answered to a transition. At the run's end the reply's last item counts blobs."""
    if reply[0] == 0:
        of = f" of node '{transition.node}'" if transition.node else ""
        _tell_if_gone(run, f"{transition.event}{of} is dropped", reply[1])
        return STALE
    status = RunStatus(reply[1].decode())
    emissions = () if status.is_terminal else chosen(transition, reply[3:])
    return Applied(emissions, status, transition.is_final, ended=reply[2])


def _tell_if_gone(run: RunRef, what: str, status: bytes) -> None:
    if not status:
        logger.warning("run %s: its state is gone from the store, so %s", run.id, what)
