"""Commands -> messages: references alone, a chord for every group, the same ids whoever compiles."""

from __future__ import annotations

import json

import pytest

from graflow_celery.celery_backend.compiler import Chord, Message, chord_body, compile_commands
from graflow_celery.core.commands import CloseBarrier, Command, DispatchNode, OpenGroup, OpenMembers
from graflow_celery.core.definition import WorkflowDefinition
from graflow_celery.core.expr import ParallelGroup
from graflow_celery.core.extend import extend
from graflow_celery.core.lower import lower
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.core.task import TaskWrapper, task
from graflow_celery.ports import RunRef

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
    _, messages = compile_commands(RUN, plan, [command])
    (message,) = messages
    return message


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


def test_opening_a_group_announces_its_chord_and_sends_its_tasks_alone(plan: Plan) -> None:
    chords, messages = compile_commands(RUN, plan, [OpenGroup("outer")])
    assert [chord.size for chord in chords] == [2]
    assert [message.args[2] for message in messages] == ["b1"], "the group inside has a command of its own"


def test_a_group_and_the_one_inside_are_opened_by_two_commands(plan: Plan) -> None:
    chords, messages = compile_commands(RUN, plan, [OpenGroup("outer"), OpenGroup("inner")])
    assert [chord.size for chord in chords] == [2, 2]
    assert [message.args[2] for message in messages] == ["b1", "c", "d"]
    outer, inner = chords
    assert "group_id" not in messages[0].options, "the chord waits for the last task of a chain"
    assert {message.options["group_id"] for message in messages[1:]} == {inner.group_id}
    last = only(plan, DispatchNode("b2", 1)).options
    assert (last["group_id"], last["group_index"]) == (outer.group_id, 0)


def test_the_body_of_an_inner_chord_has_its_place_in_the_outer_one(plan: Plan) -> None:
    (outer, inner), _ = compile_commands(RUN, plan, [OpenGroup("outer"), OpenGroup("inner")])
    body = chord_body(RUN, plan, "c")
    assert body is not None
    assert body["task"] == "graflow.barrier"
    assert body["args"] == [RUN.id, RUN.graph, "inner"]
    assert body["immutable"]
    assert (body["options"]["group_id"], body["options"]["group_index"]) == (outer.group_id, 1)
    assert inner.group_id != outer.group_id
    around = chord_body(RUN, plan, "inner")
    assert around is not None
    assert around["args"] == [RUN.id, RUN.graph, "outer"]
    assert "group_id" not in around["options"]


@pytest.mark.parametrize("node", ["a", "b1", "e", "outer"])
def test_what_completes_no_member_of_a_group_is_part_of_no_chord(plan: Plan, node: str) -> None:
    assert chord_body(RUN, plan, node) is None


def test_no_message_carries_a_body(plan: Plan) -> None:
    _, messages = compile_commands(RUN, plan, [OpenGroup("outer"), OpenGroup("inner"), CloseBarrier("inner")])
    assert not any("chord" in message.options for message in messages)


def test_another_attempt_is_another_message_in_the_same_place_of_the_same_chord(plan: Plan) -> None:
    first, second = only(plan, DispatchNode("c", 1)).options, only(plan, DispatchNode("c", 2)).options
    assert first["task_id"] != second["task_id"]
    assert [first[name] for name in ("group_id", "group_index")] == [
        second[name] for name in ("group_id", "group_index")
    ]


def test_the_members_of_a_mapped_task_are_one_chord_of_the_size_that_was_counted() -> None:
    with WorkflowDefinition("w") as wf:
        new("items") >> new("m", queue="gpu").map(max_parallel=2)
    plan = lower(wf.graph, "w")
    [chord], messages = compile_commands(RUN, plan, [OpenMembers("m", 0, 2, 5)])
    assert chord.size == 5
    assert [message.args[2] for message in messages] == ["m[0]", "m[1]"]
    later = only(plan, DispatchNode("m[4]", 1)).options
    assert (later["group_id"], later["group_index"], later["queue"]) == (chord.group_id, 4, "gpu")
    chords, _ = compile_commands(RUN, plan, [OpenMembers("m", 2, 3, 5)])
    assert chords == [], "it was announced with the first ones"


def test_every_pass_has_a_chord_of_its_own_and_a_message_of_its_own(plan: Plan) -> None:
    [first], _ = compile_commands(RUN, plan, [OpenGroup("inner")])
    [again], messages = compile_commands(RUN, plan, [OpenGroup("inner@1~2.0")])
    assert first.group_id != again.group_id
    assert [message.args[2] for message in messages] == ["c@1~2.0.0", "d@1~2.0.0"]
    assert {message.options["group_id"] for message in messages} == {again.group_id}


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
    chords, messages = once
    assert all(isinstance(chord, Chord) for chord in chords)
    for message in messages:
        json.dumps([message.args, message.options])


def test_ids_of_different_runs_nodes_and_groups_differ(plan: Plan) -> None:
    other = RunRef("f" * 16, RUN.graph)
    ids = [
        message.options["task_id"]
        for run in (RUN, other)
        for command in (DispatchNode("a", 1), DispatchNode("a", 2), DispatchNode("e", 1), CloseBarrier("outer"))
        for message in compile_commands(run, plan, [command])[1]
    ]
    assert len(ids) == len(set(ids))
