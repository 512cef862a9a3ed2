"""Commands -> Celery messages. A parallel group becomes a chord: its members are the header, its barrier the body.

It sends nothing. A message carries references alone: run, graph hash, node, attempt. Ids are made from them, so that
sending a command twice makes the same messages, and a replaced attempt takes the same place in the same chord.

A chord's body is in no message: it would be in each member's, with the bodies of all groups around it. Who ends a
member makes it again, for Celery to count the member.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from graflow_celery.codec.canonical import digest
from graflow_celery.core.activation import node_of
from graflow_celery.core.commands import CloseBarrier, Command, DispatchNode, OpenGroup, OpenMembers
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.errors import RunStateError
from graflow_celery.ports import RunRef

NODE_TASK = "graflow.node"
BARRIER_TASK = "graflow.barrier"
LONGEST_REPR = 64
#: Stands where Celery would name the sender's own reply queue: nobody is replied to.
NO_REPLY = "-"


@dataclass(frozen=True, slots=True)
class Message:
    """One Celery message: the task's name, its arguments, and the options of ``send_task``."""

    task: str
    args: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chord:
    """How many parts a chord waits for; to be made known before its header is sent."""

    group_id: str
    size: int


def compile_commands(run: RunRef, plan: Plan, commands: Sequence[Command]) -> tuple[list[Chord], list[Message]]:
    """The chords to announce and the messages to send for some commands, in their order."""
    chords: list[Chord] = []
    messages: list[Message] = []
    for command in commands:
        match command:
            case DispatchNode(node, attempt):
                messages.append(node_message(run, plan, node, attempt))
            case CloseBarrier(group):
                messages.append(barrier_message(run, plan, group))
            case OpenGroup(group):
                place = Place.of(plan, group)
                chords.append(Chord(chord_id(run, plan, group), len(place.spec.exits)))
                messages += [
                    node_message(run, plan, place.inside(entry).key, plan.first)
                    for entry in place.spec.entries
                    if not plan[entry].is_group
                ]
            case OpenMembers(group, first, count, total):
                if first == 0:
                    chords.append(Chord(chord_id(run, plan, group), total))
                prefix, suffix = Place.of(plan, group).members
                messages += [
                    node_message(run, plan, f"{prefix}{index}{suffix}", plan.first)
                    for index in range(first, first + count)
                ]
            case _:
                raise RunStateError(f"No message carries {command!r} out.")
    return chords, messages


def node_message(run: RunRef, plan: Plan, node: str, attempt: int) -> Message:
    """The message for one attempt of a task; with its place in the chord if its end completes a group's member."""
    options = plan[node].options
    given = {
        "task_id": task_id(run, node, attempt),
        "root_id": run.id,
        "queue": options.queue,
        "priority": options.priority,
        "time_limit": options.time_limit,
        "soft_time_limit": options.soft_time_limit,
        "argsrepr": label(plan.name, node, f"#{attempt}"),
        **_place_in_chord(run, plan, node),
    }
    return Message(NODE_TASK, (run.id, run.graph, node, attempt, *_added(plan, node)), _present(given))


def task_id(run: RunRef, node: str, attempt: int) -> str:
    """Celery's id of the message for one attempt of a task."""
    return f"{run.id}.{attempt}.{_short(node)}"


def barrier_message(run: RunRef, plan: Plan, group: str) -> Message:
    """The message that closes a group's barrier; with its place in the outer chord if the group is nested."""
    given = {
        "task_id": barrier_id(run, plan, group),
        "root_id": run.id,
        "argsrepr": label(plan.name, group, "barrier"),
        **_place_in_chord(run, plan, group),
    }
    return Message(BARRIER_TASK, (run.id, run.graph, group, *_added(plan, group)), _present(given))


def label(workflow: str, node: str, what: str) -> str:
    """What a row of Flower's shows of a message: ``etl clean #1``. Names that are too long lose their ends; a node's
    keeps its last characters, which tell members from each other, and ``what`` is always there.
    """
    room = LONGEST_REPR - len(what) - 2
    if len(workflow) + len(node) > room:
        most = max(room // 2, room - len(node))
        workflow = workflow if len(workflow) <= most else f"{workflow[: most - 1]}…"
        left = room - len(workflow)
        node = node if len(node) <= left else f"{node[: left - 13]}…{node[-12:]}"
    return f"{workflow} {node} {what}"


def workflow_in(text: str, node: str, what: str) -> str:
    """The workflow that a label of a node names, as far as the label has it."""
    ends = [len(text) - len(node) - len(what) - 2, *range(1, len(text))]  # the first is right where nothing was cut
    found = (text[:end] for end in ends if end > 0 and label(text[:end], node, what) == text)
    return next(found, text)


def chord_id(run: RunRef, plan: Plan, group: str) -> str:
    """Another one after a retry of the run: Celery has counted parts of the old one."""
    return f"{run.id}.g{_since(plan)}.{_short(group)}"


def barrier_id(run: RunRef, plan: Plan, group: str) -> str:
    return f"{run.id}.b{_since(plan)}.{_short(group)}"


def chord_body(run: RunRef, plan: Plan, node: str) -> dict[str, Any] | None:
    """The body of the chord of which a node's end is a part, as a signature: what Celery sends when every part has been
    counted. None for a node whose end is a part of no chord.
    """
    place = Place.of(plan, node)
    if place.spec.group is None or not place.spec.is_exit:
        return None
    message = barrier_message(run, plan, place.around.key)
    options = {**message.options, "kwargsrepr": "", "reply_to": NO_REPLY}
    return {"task": message.task, "args": list(message.args), "kwargs": {}, "options": options, "immutable": True}


def _place_in_chord(run: RunRef, plan: Plan, node: str) -> dict[str, Any]:
    place = Place.of(plan, node)
    if place.spec.group is None or not place.spec.is_exit:
        return {}
    return {"group_id": chord_id(run, plan, place.around.key), "group_index": place.spec.exit_index}


def _added(plan: Plan, node: str) -> tuple[str, ...]:
    """The graph of a node that was added while the run went on."""
    graph = plan.graph_of(node_of(node))
    return (graph,) if graph else ()


def _since(plan: Plan) -> str:
    return "" if plan.first == 1 else str(plan.first)


def _short(node: str) -> str:
    return digest(node.encode())[:12]


def _present(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}
