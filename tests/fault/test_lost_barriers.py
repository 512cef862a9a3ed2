"""A barrier's message is lost, which no worker's lease tells of: the barrier closes all the same, once."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence

import pytest

from graflow_celery import ParallelGroup, ParallelGroupError, Run, RunStatus, Settings, task, workflow
from graflow_celery.celery_backend.compiler import BARRIER_TASK
from graflow_celery.core.events import NodeFailed
from graflow_celery.core.policy import GroupPolicy, MemberOutcome
from graflow_celery.ports import RunRef
from graflow_celery.redis_backend.client import Client
from graflow_celery.runs import client_runtime
from graflow_celery.testing import wait_until

pytestmark = pytest.mark.workers


@task
def member() -> int:
    return 1


@task
def after() -> int:
    return 2


class Raising:
    """A policy with a mistake in it."""

    def judge(self, outcomes: Sequence[MemberOutcome]) -> str | None:
        raise ValueError("a mistake in a policy")


def with_lost_barrier(policy: str | GroupPolicy, settings: Settings) -> Run:
    """A run whose group has ended, and whose barrier's message was taken out of the queue and lost."""
    own = settings.model_copy(update={"queue": f"nobody-{secrets.token_hex(4)}"})
    with workflow("lost barrier") as wf:
        group = ParallelGroup([member(task_id="a"), member(task_id="b")], name="g", policy=policy)
        group >> after
    run, runtime = wf.submit(settings=own), client_runtime(own)
    for node in ("a", "b"):
        ended = NodeFailed(node, 1, "as the test wants it", retryable=False)
        assert not runtime.engine.deliver(RunRef(run.id, run.graph_hash), run.plan, ended).stale
    assert messages(runtime.client, own.queue) == 1, "one message asks for the barrier"
    runtime.client.delete(own.queue)
    return run


def messages(client: Client, queue: str) -> int:
    """How many messages in a queue ask for a barrier to be closed."""
    return sum(json.loads(message)["headers"]["task"] == BARRIER_TASK for message in client.lrange(queue, 0, -1))


def test_a_barrier_whose_message_was_lost_closes_once(graflow_settings: Settings) -> None:
    run = with_lost_barrier("best_effort", graflow_settings)
    wait_until(
        lambda: "group_succeeded" in [event["event"] for event in run.events()],
        timeout=15,
        description="the group to be closed by the monitor",
    )
    assert [event["event"] for event in run.events()].count("group_succeeded") == 1
    run.cancel("enough: nobody consumes its queue")


def test_a_policy_that_raises_fails_its_group_and_stops_no_monitor(graflow_settings: Settings) -> None:
    run = with_lost_barrier(Raising(), graflow_settings)
    assert run.wait(timeout=15) is RunStatus.FAILED
    with pytest.raises(ParallelGroupError, match="its policy raised ValueError: a mistake in a policy"):
        run.result()
