"""Commands -> Celery messages. The members of a parallel group share a Celery group id.

It sends nothing. A message carries references alone: run, graph hash, node, attempt; or a group, and which of its
members it is for. Ids are made from them, so that sending a command twice makes the same messages.

No message is part of a Celery chord. The commit that ends a member counts it (`redis_backend/lua/advance.lua`), and
whoever commits the last one sees to the barrier: see docs/decisions/0010-batches.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from graflow_celery.codec.canonical import digest
from graflow_celery.core.activation import node_of
from graflow_celery.core.commands import CloseBarrier, Command, DispatchNode, OpenGroup, OpenMembers
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan, TaskOptions
from graflow_celery.errors import RunStateError
from graflow_celery.ports import Members, RunRef

NODE_TASK = "graflow.node"
BARRIER_TASK = "graflow.barrier"
LONGEST_REPR = 64
#: Stands where Celery would name the sender's own reply queue: nobody is replied to.
NO_REPLY = "-"
#: How many members each message is for, of those that are named, which have the same queue and priority.
Divide = Callable[[RunRef, Plan, Sequence[str]], Sequence[int]]


@dataclass(frozen=True, slots=True)
class Message:
    """One Celery message: the task's name, its arguments, and the options of ``send_task``."""

    task: str
    args: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)


def one_each(run: RunRef, plan: Plan, nodes: Sequence[str]) -> Sequence[int]:
    """A message for each member."""
    return [1] * len(nodes)


def compile_commands(run: RunRef, plan: Plan, commands: Sequence[Command], divide: Divide = one_each) -> list[Message]:
    """The messages to send for some commands, in their order."""
    messages: list[Message] = []
    for command in commands:
        match command:
            case DispatchNode(node, attempt):
                messages.append(node_message(run, plan, node, attempt))
            case CloseBarrier(group):
                messages.append(barrier_message(run, plan, group))
            case OpenGroup(group, graph):
                all_of_it = Members(group, 0, len(Place.of(plan, group).spec.entries), graph)
                messages += compile_members(run, plan, all_of_it, divide)
            case OpenMembers(group, first, count, _, graph):
                messages += compile_members(run, plan, Members(group, first, count, graph), divide)
            case _:
                raise RunStateError(f"No message carries {command!r} out.")
    return messages


def compile_members(run: RunRef, plan: Plan, members: Members, divide: Divide = one_each) -> list[Message]:
    """The messages for the first attempts of members. Groups among them are opened by commands of their own."""
    place = Place.of(plan, members.group)
    messages: list[Message] = []
    for first, nodes in _alike(place, members):
        number = first
        for count in divide(run, plan, nodes):
            if count == 1:
                messages.append(node_message(run, plan, nodes[number - first], plan.first))
            else:
                messages.append(members_message(run, place, Members(members.group, number, count, members.graph)))
            number += count
    return messages


def _alike(place: Place, members: Members) -> Iterator[tuple[int, list[str]]]:
    """The members in rows with the same options for their messages: the number of the first one, and their keys."""
    plan, numbers = place.plan, range(members.first, members.first + members.count)
    if place.spec.map is not None:
        yield members.first, [place.start(number) for number in numbers]
        return
    row: list[str] = []
    first, before = members.first, None
    for number in numbers:
        entry = place.spec.entries[number]
        spec = plan[entry]
        like = None if spec.is_group else delivery(spec.options)
        if row and like != before:
            yield first, row
            row = []
        if like is not None:
            first = first if row else number
            row.append(place.start(number))
        before = like
    if row:
        yield first, row


def delivery(options: TaskOptions) -> tuple[Any, ...]:
    """What messages have in common that may be one."""
    return (options.queue, options.priority, options.time_limit, options.soft_time_limit)


def members_message(run: RunRef, place: Place, members: Members) -> Message:
    """The message for the first attempts of several members, all with the options of the first."""
    plan, last = place.plan, members.first + members.count - 1
    options = plan[place.start(members.first)].options
    given = {
        "task_id": f"{run.id}.{plan.first}.{_short(members.group)}.{members.first}-{last}",
        "root_id": run.id,
        "queue": options.queue,
        "priority": options.priority,
        "argsrepr": label(plan.name, range_of(members.group, members.first, members.count), f"#{plan.first}"),
        "group_id": chord_id(run, plan, members.group),
    }
    added = (members.graph,) if members.graph else ()
    args = (run.id, run.graph, members.group, [members.first, members.count], *added)
    return Message(NODE_TASK, args, _present(given))


def node_message(run: RunRef, plan: Plan, node: str, attempt: int) -> Message:
    """The message for one attempt of a task; with its place in the group if its end completes a member."""
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
    """The message that closes a group's barrier; with its place in the outer group if it is nested."""
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


def range_of(group: str, first: int, count: int) -> str:
    """How the members of a message that has several are called: ``score[100-199]``."""
    return f"{group}[{first}-{first + count - 1}]"


def workflow_in(text: str, node: str, what: str) -> str:
    """The workflow that a label of a node names, as far as the label has it."""
    ends = [len(text) - len(node) - len(what) - 2, *range(1, len(text))]  # the first is right where nothing was cut
    found = (text[:end] for end in ends if end > 0 and label(text[:end], node, what) == text)
    return next(found, text)


def chord_id(run: RunRef, plan: Plan, group: str) -> str:
    """Another one after a retry of the run, so that who looks at messages can tell them apart."""
    return f"{run.id}.g{_since(plan)}.{_short(group)}"


def barrier_id(run: RunRef, plan: Plan, group: str) -> str:
    return f"{run.id}.b{_since(plan)}.{_short(group)}"


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
