"""The key that tasks hand on with side effects: the same for every attempt, another one for every pass and member."""

from __future__ import annotations

from graflow_celery import IdempotencyKey, TaskExecutionContext, task, workflow
from tests.contract.conftest import Execute


def test_every_attempt_has_a_key_of_its_own_and_all_have_one_in_common(execute: Execute) -> None:
    @task(inject_context=True, max_retries=2)
    def flaky(context: TaskExecutionContext) -> None:
        key = context.idempotency_key
        context.get_channel().append("keys", (str(key), key.once, f"{key}", key.attempt == context.attempt))
        if context.retry_count < 2:
            raise ConnectionError("no answer")

    with workflow("keys") as wf:
        wf.add(flaky)
    _, context = execute(wf, ret_context=True)
    run = context.session_id
    assert [tuple(key) for key in context.get_channel().get("keys")] == [
        (f"{run}:flaky:{attempt}", f"{run}:flaky", f"{run}:flaky:{attempt}", True) for attempt in (1, 2, 3)
    ]


def test_passes_of_a_loop_and_members_have_keys_of_their_own(execute: Execute) -> None:
    @task(inject_context=True)
    def again(context: TaskExecutionContext) -> list[int]:
        context.get_channel().append("keys", context.idempotency_key.once)
        if context.cycle_count < 3:
            context.next_task("again")
        return [1, 2]

    @task(inject_context=True)
    def each(context: TaskExecutionContext, again: int) -> str:
        return context.idempotency_key.once

    with workflow("passes") as wf:
        again >> each.map()
    result, context = execute(wf, ret_context=True)
    passes = context.get_channel().get("keys")
    assert len(set(passes)) == 3
    assert passes[0] == f"{context.session_id}:again"
    assert all(key.startswith(f"{context.session_id}:again") for key in passes)
    assert len(set(result)) == 2
    assert all(key.startswith(f"{context.session_id}:each[") for key in result)


def test_it_is_a_tuple_of_what_it_names() -> None:
    key = IdempotencyKey("nightly", "charge", 2)
    assert (*key,) == ("nightly", "charge", 2)
    assert (str(key), key.once) == ("nightly:charge:2", "nightly:charge")
