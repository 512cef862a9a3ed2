"""A transition in the form that `lua/advance.lua` documents, its answer, and the records that it writes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from graflow_celery.codec.exceptions import encode_exception
from graflow_celery.codec.values import ValueCodec
from graflow_celery.core.activation import node_of
from graflow_celery.core.commands import DispatchNode, OpenGroup, from_text, to_text
from graflow_celery.core.state import Arrival, Draw, Emission, NodeState, Transition
from graflow_celery.ports import NOTHING, NodeReport, Outcome
from graflow_celery.redis_backend.liveness import name_of
from graflow_celery.redis_backend.values import ValueStore

_MARK = "\x00"


def to_wire(transition: Transition) -> dict[str, Any]:
    """What the script is told of a transition, without what is empty and what the outcome tells."""
    wire: dict[str, Any] = {"event": transition.event, "attempt": transition.attempt}
    more = {
        "first": transition.first if transition.first != 1 else 0,
        "next": transition.next_attempt,
        "retries": int(transition.retries),
        "losses": int(transition.loses),
        "consumes": transition.consumes,
        "scopes": transition.scopes,
        "declares": transition.declares,
        "arrivals": [_arrival(item) for item in transition.arrivals],
        "emissions": [_emission(item) for item in transition.emissions],
        "reason": transition.reason,
        "graph": transition.graph,
        "jumps": transition.jumps,
        "acks": [to_text(command) for command in transition.acknowledges],
    }
    wire |= {name: told for name, told in more.items() if told}
    if transition.node is not None:
        wire |= {"node": transition.node, "keep": node_of(transition.node)}
    if transition.holder is not None:
        wire["holder"] = transition.holder
    if transition.becomes is not None:
        wire["becomes"] = transition.becomes.value
    if transition.mirror is not None:
        wire["mirror"] = transition.mirror
    if transition.draw is not None:
        wire["draw"] = _draw(transition.draw)
    if transition.pauses or transition.resumes:
        wire["pauses" if transition.pauses else "resumes"] = True
    if transition.ends is not None:
        wire["ends"] = transition.ends.value
    if transition.items is not None:
        wire["items"] = transition.items
    return wire


def _arrival(arrival: Arrival) -> list[Any]:
    then = [_emission(one) for one in arrival.then]
    if arrival.live or not arrival.otherwise:
        return [arrival.key, arrival.needs, int(arrival.live), then]
    return [arrival.key, arrival.needs, int(arrival.live), then, [_emission(one) for one in arrival.otherwise]]


def of_outcome(outcome: Outcome) -> dict[str, Any]:
    """What goes into the run's events alone."""
    told: dict[str, Any] = {}
    if outcome.reported:
        told["reported"] = True
    if outcome.worker:
        told["worker"] = outcome.worker
    if outcome.duration:
        told["duration"] = int(outcome.duration * 1000)
    return told


def chosen(transition: Transition, reply: Sequence[Any]) -> tuple[Emission, ...]:
    """The emissions that the script queued, from its list of commands."""
    if not reply:
        return ()
    known = {to_text(emission.command): emission for emission in _possible(transition)}
    queued = [text.decode() for text in reply]
    return tuple(known.get(text) or Emission(from_text(text)) for text in queued)


def _possible(transition: Transition) -> Iterator[Emission]:
    yield from transition.emissions
    for arrival in transition.arrivals:
        yield from arrival.then
        yield from arrival.otherwise


def _emission(emission: Emission) -> list[Any]:
    match emission.command:
        case DispatchNode(node, attempt, graph):
            record: list[Any] = ["node_queued", node, attempt, graph]
        case OpenGroup(group, graph):
            record = ["group_opened", group, 0, graph]
        case _:
            record = ["", "", 0, ""]
    delay = int(emission.delay * 1000)
    return [to_text(emission.command), emission.weight, delay, emission.reenters, *record, emission.members]


def _draw(draw: Draw) -> list[str | int]:
    """The parts around the member's number, of the command's text and of the key."""
    text = to_text(DispatchNode(f"{draw.prefix}{_MARK}{draw.suffix}", draw.attempt, draw.graph))
    before, _, after = text.partition(json.dumps(_MARK)[1:-1])
    return [draw.cursor, draw.limit, before, after, draw.prefix, draw.suffix, draw.graph, draw.attempt]


def report_of(field: bytes | None) -> NodeReport | None:
    """The record of an activation, as the hash of nodes holds it."""
    if field is None:
        return None
    state, attempt, worker, started, duration, losses, retries, cycle, graph = field.decode().split("|")
    return NodeReport(
        NodeState(state),
        int(attempt),
        name_of(worker),
        int(started or 0) / 1000,
        int(duration or 0) / 1000,
        int(losses),
        int(retries),
        int(cycle),
        graph,
        worker if state == NodeState.RUNNING else "",
    )


def error_text(field: bytes | None) -> str | None:
    """An error, as the hash of errors holds it, in a line."""
    if field is None:
        return None
    record = json.loads(field)
    return f"{str(record['type']).rpartition('.')[2]}: {record['message']}"


def error_record(error: BaseException, codec: ValueCodec) -> bytes:
    """An error, as the hash of errors holds it."""
    return json.dumps(encode_exception(error, allow_pickle=codec.allows_pickle, codec=codec)).encode()


def packed_value(values: ValueStore, value: Any, what: str) -> bytes:
    """A value as a hash holds it; nothing, where there is none."""
    return b"" if value is NOTHING else values.pack(value, what)


def soonest_timer(emissions: Iterable[Emission]) -> float:
    """Seconds until the first timer is due."""
    return min((emission.delay for emission in emissions if emission.delay), default=math.inf)
