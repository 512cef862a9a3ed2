"""Results of tasks that were added while a run went on, by their ids and keys."""

from __future__ import annotations

import pytest

from graflow_celery import RunStatus, Settings, TaskExecutionContext, parallel, task, workflow
from graflow_celery.errors import RunFailedError, UnknownNodeError
from graflow_celery.redis_backend.client import connect
from graflow_celery.testing import embedded_cluster

pytestmark = pytest.mark.workers


@task
def one() -> int:
    return 1


@task
def many() -> list[int]:
    return [1, 2, 3]


@task
def twice(item: int) -> int:
    return 2 * item


@task
def fails() -> None:
    raise LookupError("nothing there")


@task(queue="of-no-worker")
def later() -> int:
    return 4


@task(inject_context=True)
def grows(context: TaskExecutionContext) -> str:
    both = parallel(one(task_id="left"), one(task_id="right")).set_group_name("both")
    context.next_task(many(task_id="numbers") >> twice(task_id="doubled").map(over="numbers") >> both)
    return "grown"


@task(inject_context=True)
def grows_badly(context: TaskExecutionContext) -> None:
    context.next_task(fails(task_id="bad"))


def test_a_run_has_the_results_of_what_was_added(graflow_settings: Settings) -> None:
    with workflow("growing") as wf:
        wf.add(grows)
    run = wf.submit(settings=graflow_settings)
    assert run.wait(30) is RunStatus.SUCCEEDED
    assert run.result("left") == 1
    assert run.result("numbers") == [1, 2, 3]
    assert run.result("doubled") == [2, 4, 6]
    assert run.result("doubled[1]") == 4
    assert run.result("both") == {"left": 1, "right": 1}
    [key] = [key for key in run.nodes() if key.startswith("left@")]
    assert run.result(key) == 1
    with pytest.raises(UnknownNodeError, match="nowhere"):
        run.result("nowhere")


def test_what_an_added_task_raised_is_raised(graflow_settings: Settings) -> None:
    with workflow("growing badly") as wf:
        wf.add(grows_badly)
    run = wf.submit(settings=graflow_settings)
    assert run.wait(30) is RunStatus.FAILED
    with pytest.raises(LookupError, match="nothing there"):
        run.result("bad")


def test_a_result_needs_no_graph() -> None:
    with embedded_cluster() as own:
        with workflow("plain") as wf:
            wf.add(one)
        run = wf.submit(settings=own.settings)
        assert run.wait(30) is RunStatus.SUCCEEDED
        store = connect(own.settings.redis_url)
        store.delete(*store.keys("*:blob:*"))
        again = type(run).get(run.id, own.settings.model_copy(update={"reconnect_timeout": 299.0}))
        assert again.result("one") == 1


def test_a_node_that_has_not_ended_has_no_result(graflow_settings: Settings) -> None:
    with workflow("waits") as wf:
        wf.add(later)
    run = wf.submit(settings=graflow_settings)
    with pytest.raises(RunFailedError, match="has no result"):
        run.result("later")
    run.cancel()
