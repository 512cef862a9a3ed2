"""What is made of the facts of a run: which are told, in which words, and how many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from graflow_celery.core.commands import DispatchNode, ExpireGroup, ExpireRun
from graflow_celery.core.plan import NodeSpec, Plan, TaskOptions
from graflow_celery.core.policy import (
    AtLeastNGroupPolicy,
    BestEffortGroupPolicy,
    CriticalGroupPolicy,
    GroupPolicy,
    StrictGroupPolicy,
)
from graflow_celery.core.state import NodeState
from graflow_celery.engine.explaining import OVERDUE, Facts, explained
from graflow_celery.engine.explanation import Deadline
from graflow_celery.ports import Held, NodeReport, RunRef
from graflow_celery.redis_backend.liveness import WorkerLease

NOW = 1000.0
RUN = RunRef("r", "g")


def group(count: int, policy: GroupPolicy) -> Plan:
    names = tuple(f"m{index}" for index in range(count))
    members = {
        name: NodeSpec(name, needs=1, group="group", exit_index=index, options=TaskOptions(queue="q"))
        for index, name in enumerate(names)
    }
    return Plan("wf", "group", {"group": NodeSpec("group", entries=names, exits=names, policy=policy), **members})


def report(state: NodeState, since: float = NOW - 5, attempt: int = 1, **more: Any) -> NodeReport:
    return NodeReport(state, attempt, more.pop("worker", ""), since, 0.0, more.pop("losses", 0), **more)


def facts(plan: Plan, records: Mapping[str, NodeReport], **more: Any) -> Facts:
    made = Facts(
        run="r",
        now=NOW,
        plan_for=lambda graph: plan,
        details={"status": "running", "workflow": "wf", "started": "990000"},
        records=records,
        items={},
        outbox=[],
        watch={},
        requests=[],
        leases={},
        depths=lambda queue: 7,
        errors=lambda nodes: dict.fromkeys(nodes, "ValueError: no"),
        events=[],
        monitor="w",
        timeout=3.0,
        queue="celery",
    )
    return replace(made, **more)


ALONE = Plan("wf", "a", {"a": NodeSpec("a", options=TaskOptions(time_limit=60))})


def test_what_runs_says_who_has_it_and_what_ends_it() -> None:
    lease = WorkerLease("w@h", ("celery",), 42, 1, boot="b", age=0.5)
    running = report(NodeState.RUNNING, attempt=2, worker="w@h", losses=1, holder="w@h#b")
    [node] = explained(facts(ALONE, {"a": running}, leases={"w@h#b": lease})).nodes
    assert (node.state, node.worker, node.pid, node.last_beat) == ("running", "w@h", 42, 0.5)
    assert (node.attempt, node.losses, node.messages) == (2, 1, None)
    assert node.deadlines == (
        Deadline("its worker's lease runs out", NOW + 2.5),
        Deadline("it is killed at its time_limit", NOW + 55),
    )
    [orphan] = explained(facts(ALONE, {"a": running})).nodes
    assert (orphan.pid, orphan.last_beat) == (None, None)


def test_a_retry_whose_time_has_not_come_is_delayed_and_not_stalled() -> None:
    found = explained(facts(ALONE, {"a": report(NodeState.QUEUED, since=NOW + 4, attempt=2, retries=1)}))
    assert [(node.state, node.retries) for node in found.nodes] == [("delayed", 1)]
    assert found.nodes[0].deadlines[0] == Deadline("it is tried again", NOW + 4)
    assert found.obstacles == ()


def test_what_is_queued_says_where_and_who_took_it_and_when_it_is_sent_again() -> None:
    lease = WorkerLease("w@h", ("celery",), 42, 1, held=(Held(RUN, "a", 1),))
    queued = report(NodeState.QUEUED)
    told = facts(
        ALONE, {"a": queued}, leases={"w": lease}, outbox=[(DispatchNode("a", 1), NOW + 1)], watch={"a": NOW + 2}
    )
    [node] = explained(told).nodes
    assert (node.queue, node.consumers, node.messages, node.held_by) == ("celery", 1, 7, "w@h")
    assert [item.what for item in node.deadlines] == ["the monitor sends its message", "the monitor looks at it"]
    assert explained(told).obstacles == ()


def test_a_run_that_nobody_serves_says_so_once_for_each_queue() -> None:
    silent = WorkerLease("w@h", ("q",), 42, 1, age=9.0)
    found = explained(
        facts(group(5, StrictGroupPolicy()), {"group": report(NodeState.RUNNING, attempt=0)}, leases={"w": silent})
    )
    assert [item.reason for item in found.obstacles] == ["no live worker consumes the queue 'q': 5 tasks wait there"]
    assert found.counts == {"queued": 5}


def test_commands_that_nobody_sees_to_are_an_obstacle_and_so_is_a_missing_monitor() -> None:
    done = {"a": report(NodeState.SUCCEEDED)}
    late = explained(facts(ALONE, done, outbox=[(DispatchNode("a", 2), NOW - OVERDUE - 1)]))
    assert "overdue, the oldest by 16 s" in late.obstacles[0].reason
    assert "no monitor leads" in explained(facts(ALONE, done, monitor=None)).obstacles[0].reason


@pytest.mark.parametrize(
    ("policy", "needs"),
    [
        (StrictGroupPolicy(), "strict: 1 failed, so it fails when all have ended"),
        (BestEffortGroupPolicy(), "best_effort: all have to end"),
        (AtLeastNGroupPolicy(3), "at_least_n: 3 have to succeed, 2 more"),
        (CriticalGroupPolicy(("m0", "m2")), "critical: m2 have to succeed"),
    ],
)
def test_an_open_group_says_what_its_policy_needs(policy: GroupPolicy, needs: str) -> None:
    records = {
        "group": report(NodeState.RUNNING, attempt=0),
        "m0": report(NodeState.SUCCEEDED),
        "m1": report(NodeState.FAILED),
    }
    timers = [(ExpireGroup("group"), NOW + 9), (ExpireRun(60), NOW + 50)]
    found = explained(facts(group(4, policy), records, outbox=timers))
    [shown] = found.groups
    assert (shown.members, shown.ended, shown.succeeded, shown.failed) == (4, 2, 1, 1)
    assert shown.needs == needs
    assert shown.deadlines == (Deadline("its timeout closes it", NOW + 9),)
    assert found.timeout == NOW + 50
    assert [item.node for item in found.failures] == ["m1"]


def test_what_a_closed_group_left_is_not_waited_for() -> None:
    records = {"group": report(NodeState.FAILED, attempt=0), "m0": report(NodeState.RUNNING)}
    assert explained(facts(group(2, StrictGroupPolicy()), records)).nodes == ()


def test_of_a_big_run_a_few_are_told_and_all_are_counted() -> None:
    plan = group(5000, StrictGroupPolicy())
    found = explained(facts(plan, {"group": report(NodeState.RUNNING, attempt=0)}), 3)
    assert (len(found.nodes), found.more_nodes, found.counts) == (3, 4997, {"queued": 5000})
    late = {"group": report(NodeState.RUNNING, attempt=0), "m77": report(NodeState.RUNNING, since=NOW - 1)}
    assert [node.node for node in explained(facts(plan, late), 2).nodes] == ["m77", "m0"], "what runs comes first"
    assert len(explained(facts(plan, {"group": report(NodeState.RUNNING, attempt=0)}), None).nodes) == 5000


def test_an_ended_run_waits_for_nothing_and_says_what_can_be_done() -> None:
    details = {"status": "failed", "started": "990000", "finished": "995000", "reason": "a failed"}
    events = [{"event": "node_started", "at": 1.0}, {"event": "node_lost", "at": 2.0, "node": "a", "reason": "w died"}]
    found = explained(facts(ALONE, {"a": report(NodeState.FAILED)}, details=details, monitor=None, events=events))
    assert (found.nodes, found.obstacles, found.finished) == ((), (), 995.0)
    assert [(item.event, item.reason) for item in found.happenings] == [("node_lost", "w died")]
    assert "graflow-celery retry r" in found.advice
    assert found.to_dict()["failures"][0]["error"] == "ValueError: no"


def test_what_the_store_lost_is_told_of_once_however_many_miss_it() -> None:
    missing = {"event": "blobs_missing", "names": "b1,b2", "what": "a function of task 'a'"}
    lost = {"event": "node_lost", "at": 4.0, "node": "a"}
    events = [{**missing, "at": float(at), "node": f"a[{at}]"} for at in range(3)]
    found = explained(facts(ALONE, {}, events=[*events, lost, {**missing, "at": 5.0, "node": "a"}]))
    assert [(item.event, item.at, item.node) for item in found.happenings] == [
        ("blobs_missing", 0.0, "a[0]"),
        ("node_lost", 4.0, "a"),
        ("blobs_missing", 5.0, "a"),
    ]
    assert found.happenings[0].reason == "the store had lost a function of task 'a': blob b1, b2"
