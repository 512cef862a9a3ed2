"""Commands -> messages: references alone, a chord for every group, the same ids whoever compiles."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from graflow_celery.celery_backend.compiler import Message, chord_id, compile_commands, compile_members
from graflow_celery.core.commands import CloseBarrier, Command, DispatchNode, OpenGroup, OpenMembers
from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.expr import ParallelGroup
from graflow_celery.core.extend import extend
from graflow_celery.core.lower import lower
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.core.task import TaskWrapper, task
from graflow_celery.engine.portions import portions
from graflow_celery.ports import Members, RunRef

RUN = RunRef("0123456789abcdef", "00112233445566778899aabbccddeeff")


def new(name: str, **options: object) -> TaskWrapper:
    def body(item: object = None) -> None: ...

    return task(name, **options)(body)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def plan() -> Plan:
    with WorkflowDefinition("etl") as wf:
        chain_member = new("b1") >> new("b2", queue="gpu", priority=3, time_limit=9.0, soft_time_limit=8.0)
        inner = ParallelGroup([new("c"), new("d")], name="inner")
        new("a") >> ParallelGroup([chain_member, inner], name="outer") >> new("e")
    return lower(wf.graph, "etl")


def only(plan: Plan, command: Command) -> Message:
    (message,) = compile_commands(RUN, plan, [command])
    return message


def in_threes(run: RunRef, plan: Plan, nodes: Sequence[str]) -> Sequence[int]:
    return portions(len(nodes), None, 1, 3)


def group_of(*members: TaskWrapper, name: str = "g") -> Plan:
    with WorkflowDefinition("w") as wf:
        wf.add(ParallelGroup(members, name=name))
    return lower(wf.graph, "w")


def test_a_node_message_carries_references_alone(plan: Plan) -> None:
    message = only(plan, DispatchNode("a", 1))
    assert message.task == "graflow.node"
    assert message.args == (RUN.id, RUN.graph, "a", 1)
    assert "group_id" not in message.options


def test_celerys_options_reach_the_message(plan: Plan) -> None:
    options = only(plan, DispatchNode("b2", 1)).options
    assert (options["queue"], options["priority"], options["time_limit"], options["soft_time_limit"]) == (
        "gpu",
        3,
        9.0,
        8.0,
    )


def test_opening_a_group_sends_its_tasks_alone(plan: Plan) -> None:
    messages = compile_commands(RUN, plan, [OpenGroup("outer")])
    assert [message.args[2] for message in messages] == ["b1"], "the group inside has a command of its own"


def test_a_group_and_the_one_inside_are_opened_by_two_commands(plan: Plan) -> None:
    messages = compile_commands(RUN, plan, [OpenGroup("outer"), OpenGroup("inner")])
    assert [message.args[2] for message in messages] == ["b1", "c", "d"]
    assert "group_id" not in messages[0].options, "the chord waits for the last task of a chain"
    assert {message.options["group_id"] for message in messages[1:]} == {chord_id(RUN, plan, "inner")}
    last = only(plan, DispatchNode("b2", 1)).options
    assert (last["group_id"], last["group_index"]) == (chord_id(RUN, plan, "outer"), 0)


def test_the_barrier_of_an_inner_group_has_its_place_in_the_outer_one(plan: Plan) -> None:
    inner, outer = only(plan, CloseBarrier("inner")), only(plan, CloseBarrier("outer"))
    assert (inner.task, inner.args) == ("graflow.barrier", (RUN.id, RUN.graph, "inner"))
    assert (inner.options["group_id"], inner.options["group_index"]) == (chord_id(RUN, plan, "outer"), 1)
    assert outer.args == (RUN.id, RUN.graph, "outer")
    assert "group_id" not in outer.options
    assert chord_id(RUN, plan, "inner") != chord_id(RUN, plan, "outer")


@pytest.mark.parametrize("node", ["a", "b1", "e", "outer"])
def test_what_completes_no_member_of_a_group_is_part_of_no_chord(plan: Plan, node: str) -> None:
    command = CloseBarrier(node) if plan[node].is_group else DispatchNode(node, 1)
    assert not {"group_id", "group_index"} & only(plan, command).options.keys()


def test_no_message_carries_a_body(plan: Plan) -> None:
    """Celery would count its parts, by message and with no fence."""
    commands: list[Command] = [OpenGroup("outer"), OpenGroup("inner"), CloseBarrier("inner")]
    messages = compile_commands(RUN, plan, commands, in_threes)
    assert not any("chord" in message.options for message in messages)


def test_another_attempt_is_another_message_in_the_same_place_of_the_same_chord(plan: Plan) -> None:
    first, second = only(plan, DispatchNode("c", 1)).options, only(plan, DispatchNode("c", 2)).options
    assert first["task_id"] != second["task_id"]
    assert [first[name] for name in ("group_id", "group_index")] == [
        second[name] for name in ("group_id", "group_index")
    ]


def test_the_members_of_a_mapped_task_are_one_chord() -> None:
    with WorkflowDefinition("w") as wf:
        new("items") >> new("m", queue="gpu").map(max_parallel=2)
    plan = lower(wf.graph, "w")
    messages = compile_commands(RUN, plan, [OpenMembers("m", 0, 2, 5)])
    assert [message.args[2] for message in messages] == ["m[0]", "m[1]"]
    later = only(plan, DispatchNode("m[4]", 1)).options
    assert (later["group_id"], later["group_index"], later["queue"]) == (chord_id(RUN, plan, "m"), 4, "gpu")


def test_every_pass_has_a_chord_of_its_own_and_a_message_of_its_own(plan: Plan) -> None:
    messages = compile_commands(RUN, plan, [OpenGroup("inner@1~2.0")])
    assert [message.args[2] for message in messages] == ["c@1~2.0.0", "d@1~2.0.0"]
    assert {message.options["group_id"] for message in messages} == {chord_id(RUN, plan, "inner@1~2.0")}
    assert chord_id(RUN, plan, "inner@1~2.0") != chord_id(RUN, plan, "inner")


def test_a_message_for_a_task_that_was_added_names_the_graph_that_holds_it(plan: Plan) -> None:
    place = Place.of(plan, "a")
    added = extend(place, 1, [new("x")], leaves=False)
    extended = plan.extended("hash", added.plan.nodes)
    node = Place.of(extended, added.key).inside("x").key
    assert only(extended, DispatchNode(node, 1, "hash")).args == (RUN.id, RUN.graph, node, 1, "hash")
    assert only(extended, CloseBarrier(added.key, "hash")).args == (RUN.id, RUN.graph, added.key, "hash")


def test_compiling_twice_gives_the_same_messages_which_are_json(plan: Plan) -> None:
    commands: list[Command] = [DispatchNode("a", 1), OpenGroup("outer"), CloseBarrier("inner")]
    once, again = compile_commands(RUN, plan, commands), compile_commands(RUN, plan, commands)
    assert once == again
    for message in once:
        json.dumps([message.args, message.options])


def test_ids_of_different_runs_nodes_and_groups_differ(plan: Plan) -> None:
    other = RunRef("f" * 16, RUN.graph)
    ids = [
        message.options["task_id"]
        for run in (RUN, other)
        for command in (DispatchNode("a", 1), DispatchNode("a", 2), DispatchNode("e", 1), CloseBarrier("outer"))
        for message in compile_commands(run, plan, [command])
    ]
    assert len(ids) == len(set(ids))


# ------------------------------------------------------------------------------------ members that share messages


def test_members_share_messages_as_they_are_divided() -> None:
    plan = group_of(*(new(f"m{index}") for index in range(7)))
    messages = compile_commands(RUN, plan, [OpenGroup("g")], in_threes)
    assert [message.args[2:] for message in messages] == [("g", [0, 3]), ("g", [3, 3]), ("m6", 1)]
    assert {message.options["group_id"] for message in messages} == {chord_id(RUN, plan, "g")}


def test_a_message_for_members_is_less_than_a_kilobyte_whatever_their_names_are() -> None:
    plan = group_of(*(new(f"{'m' * 246}{index}") for index in range(50)), name="g" * 250)
    members = Members("g" * 250, 0, 50, "f" * 32)
    [message] = compile_members(RUN, plan, members, lambda run, plan, nodes: [len(nodes)])
    assert message.args == (RUN.id, RUN.graph, "g" * 250, [0, 50], "f" * 32)
    assert len(json.dumps([message.args, message.options])) < 1000


def test_the_same_members_have_the_same_message_and_others_another_one() -> None:
    plan = group_of(*(new(f"m{index}") for index in range(9)))
    whole = compile_members(RUN, plan, Members("g", 0, 9), in_threes)
    assert compile_members(RUN, plan, Members("g", 3, 3), in_threes) == whole[1:2]
    parts = [Members("g", 0, 3), Members("g", 0, 2), Members("g", 1, 2), Members("g", 3, 3)]
    ids = [compile_members(RUN, plan, part, in_threes)[0].options["task_id"] for part in parts]
    assert len(set(ids)) == len(parts)
    retried = replace(plan, first=2)
    assert compile_members(RUN, retried, Members("g", 0, 3), in_threes)[0].options["task_id"] not in ids


def test_members_with_other_queues_or_priorities_travel_apart() -> None:
    options: list[dict[str, object]] = [{}, {}, {"queue": "gpu"}, {"queue": "gpu"}, {"priority": 3}, {}, {}]
    plan = group_of(*(new(f"m{index}", **chosen) for index, chosen in enumerate(options)))
    messages = compile_commands(RUN, plan, [OpenGroup("g")], lambda run, plan, nodes: [len(nodes)])
    assert [
        (message.args[2:], message.options.get("queue"), message.options.get("priority")) for message in messages
    ] == [(("g", [0, 2]), None, None), (("g", [2, 2]), "gpu", None), (("m4", 1), None, 3), (("g", [5, 2]), None, None)]


def test_a_group_inside_parts_its_neighbours() -> None:
    with WorkflowDefinition("w") as wf:
        inner = ParallelGroup([new("x"), new("y")], name="inner")
        wf.add(ParallelGroup([new("a"), new("b"), inner, new("c"), new("d")], name="g"))
    messages = compile_commands(RUN, lower(wf.graph, "w"), [OpenGroup("g")], in_threes)
    assert [message.args[2:] for message in messages] == [("g", [0, 2]), ("g", [3, 2])]


def test_items_of_a_mapped_task_share_messages() -> None:
    with WorkflowDefinition("w") as wf:
        wf.add(new("m").map(over="numbers"))
    messages = compile_commands(RUN, lower(wf.graph, "w"), [OpenMembers("m", 2, 5, 9)], in_threes)
    assert [message.args[2:] for message in messages] == [("m", [2, 3]), ("m", [5, 2])]
