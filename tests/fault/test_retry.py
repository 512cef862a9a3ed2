"""Retrying runs on real workers: what failed runs again, what succeeded is kept, and what is old counts for nothing."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

import pytest

from graflow_celery import ParallelGroup, Run, RunStatus, Settings, TaskExecutionContext, task, workflow
from graflow_celery.celery_backend.retrying import retry
from graflow_celery.core.events import BarrierReached, NodeSucceeded
from graflow_celery.core.scheduler import Scheduler
from graflow_celery.embedded import EmbeddedServer
from graflow_celery.errors import BlobMissingError, RetryRefusedError, UnknownNodeError
from graflow_celery.ports import Attempt, Held, Outcome, RunRef
from graflow_celery.runs import client_runtime
from graflow_celery.settings import load_settings
from graflow_celery.testing import wait_until

pytestmark = pytest.mark.workers


@task(inject_context=True)
def step(context: TaskExecutionContext, home: str, fails: bool = False) -> str:
    """Notes that it ran; fails until the file ``mended`` is there."""
    context.get_channel().append("ran", context.task_id)
    if fails and not Path(home, "mended").exists():
        raise ValueError(f"{context.task_id} is broken")
    return f"{context.task_id}#{context.attempt}"


@task(inject_context=True)
def gated(context: TaskExecutionContext, home: str) -> str:
    """Waits for its gate to open, and says as which attempt it ran."""
    Path(home, f"begun-{context.task_id}-{context.attempt}").touch()
    wait_until(Path(home, f"open-{context.attempt}").exists, timeout=60, description="the gate to open")
    return f"attempt {context.attempt}"


def ran(run: Run) -> Counter[str]:
    return Counter(run.context.get_channel().get("ran"))


def events(run: Run) -> list[str]:
    return [str(record["event"]) for record in run.events()]


def test_the_failed_node_and_all_after_it_run_again(graflow_settings: Settings, tmp_path: Path) -> None:
    home = str(tmp_path)
    a, b, c, d = (step(task_id=name, home=home, fails=name == "b") for name in "abcd")
    with workflow("line") as wf:
        a >> b >> c
        a >> d >> c
    run = wf.submit(settings=graflow_settings)
    assert run.wait(timeout=30) is RunStatus.FAILED
    wait_until(lambda: run.nodes()["d"] is not None, timeout=10, description="d to have begun")
    before = run.details()
    dry = run.retry_failed(dry_run=True)
    assert (dry.dry_run, run.details()) == (True, before), "nothing was changed"
    assert {"b", "c"} <= set(dry.again) <= {"b", "c", "d"}
    (tmp_path / "mended").touch()
    report = run.retry_failed()
    assert "a" in report.kept
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert run.result() == "c#2"
    assert (ran(run)["a"], ran(run)["b"], ran(run)["c"]) == (1, 2, 1)
    assert (run.reason, run.errors(), run.details().get("failed_node", "")) == ("", {}, "")
    told = events(run)
    assert told.index("run_failed") < told.index("run_retried") < told.index("run_succeeded")
    followed = [str(record["event"]) for record in run.events(follow=True)]
    assert followed == told, "the end that was overcome is not taken for the end"
    [retried] = [record for record in run.events() if record["event"] == "run_retried"]
    assert "'b' failed" in retried["reason"]
    with pytest.raises(RetryRefusedError, match="nothing of it failed"):
        run.retry_failed()


def test_a_group_runs_the_members_that_failed_and_keeps_the_others(graflow_settings: Settings, tmp_path: Path) -> None:
    members = [step(task_id=f"m{index}", home=str(tmp_path), fails=index % 3 == 0) for index in range(7)]
    with workflow("group") as wf:
        ParallelGroup(members, name="g", batch=1) >> step(task_id="after", home=str(tmp_path))
    run = wf.submit(settings=graflow_settings)
    assert run.wait(timeout=30) is RunStatus.FAILED
    first = run.retry_failed()
    assert set(first.again) == {"m0", "m3", "m6", "after"}
    assert run.wait(timeout=30) is RunStatus.FAILED, "it is not mended yet"
    (tmp_path / "mended").touch()
    run.retry_failed()
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert ran(run) == Counter({"m0": 3, "m3": 3, "m6": 3, "m1": 1, "m2": 1, "m4": 1, "m5": 1, "after": 1})
    assert run.result("g") == {f"m{index}": f"m{index}#{3 if index % 3 == 0 else 1}" for index in range(7)}


def test_a_mapped_task_with_a_few_members_at_a_time(graflow_settings: Settings, tmp_path: Path) -> None:
    @task(inject_context=True)
    def square(context: TaskExecutionContext, number: int, home: str) -> int:
        context.get_channel().append("ran", context.task_id)
        if number in (1, 4) and not Path(home, "mended").exists():
            raise ValueError("broken")
        return number * number

    with workflow("map") as wf:
        square(task_id="square", home=str(tmp_path)).map(over="numbers", max_parallel=2)
    run = wf.submit(initial_channel={"numbers": list(range(6))}, settings=graflow_settings)
    assert run.wait(timeout=30) is RunStatus.FAILED
    (tmp_path / "mended").touch()
    assert set(run.retry_failed().again) == {"square[1]", "square[4]"}
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert run.result() == [0, 1, 4, 9, 16, 25]
    assert ran(run) == Counter({f"square[{index}]": 2 if index in (1, 4) else 1 for index in range(6)})
    assert run.retry_failed("square[3]").again == ("square[3]",)
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert ran(run)["square[3]"] == 2


def test_a_zombie_of_a_cancelled_run_changes_nothing_of_the_retried_one(
    graflow_settings: Settings, tmp_path: Path
) -> None:
    with workflow("zombie") as wf:
        gated(task_id="slow", home=str(tmp_path)) >> step(task_id="after", home=str(tmp_path))
    run = wf.submit(settings=graflow_settings)
    wait_until(lambda: (tmp_path / "begun-slow-1").exists(), timeout=30, description="the first attempt to run")
    run.cancel("to try it again")
    assert run.retry_failed().again == ("slow", "after")
    wait_until(lambda: (tmp_path / "begun-slow-2").exists(), timeout=30, description="the second attempt to run")
    old = Attempt(RunRef(run.id, run.graph_hash), run.plan, "slow", 1, "zombie")
    runtime = client_runtime(graflow_settings)
    assert runtime.store.begin(old, (), []) is None, "its message comes too late"
    late = Scheduler().decide(runtime.graph(run.graph_hash).plan, NodeSucceeded("slow", 1))
    assert runtime.store.commit(RunRef(run.id, run.graph_hash), late, Outcome(value="zombie")).stale
    (tmp_path / "open-1").touch()
    (tmp_path / "open-2").touch()
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert run.result("slow") == "attempt 2"
    assert ran(run) == Counter({"after": 1})


def test_the_body_of_an_old_chord_does_not_close_a_group_that_runs_again(
    graflow_settings: Settings, tmp_path: Path
) -> None:
    with workflow("old chord") as wf:
        step(task_id="before", home=str(tmp_path)) >> ParallelGroup(
            [gated(task_id=f"m{index}", home=str(tmp_path)) for index in range(2)], name="g"
        )
    run = wf.submit(settings=graflow_settings)
    wait_until(lambda: len(list(tmp_path.glob("begun-*-1"))) == 2, timeout=30, description="both members to run")
    (tmp_path / "open-1").touch()
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    run.retry_failed("before")
    wait_until(lambda: len(list(tmp_path.glob("begun-*-2"))) == 2, timeout=30, description="both members to run again")
    runtime = client_runtime(graflow_settings)
    closed = Scheduler().decide(runtime.graph(run.graph_hash).plan, BarrierReached("g", None))
    assert runtime.store.commit(RunRef(run.id, run.graph_hash), closed).stale
    (tmp_path / "open-2").touch()
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert run.result("g") == {"m0": "attempt 2", "m1": "attempt 2"}
    assert events(run).count("group_succeeded") == 2


def test_after_max_steps_it_gets_as_many_again(graflow_settings: Settings, tmp_path: Path) -> None:
    a, b, c = (step(task_id=name, home=str(tmp_path)) for name in "abc")
    with workflow("steps") as wf:
        a >> b >> c
    run = wf.submit(max_steps=2, settings=graflow_settings)
    assert run.wait(timeout=30) is RunStatus.TERMINATED
    assert run.retry_failed().again == ("c",)
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert ran(run) == Counter("abc")


def test_a_task_that_said_that_the_run_is_done_is_taken_at_its_word(graflow_settings: Settings, tmp_path: Path) -> None:
    @task(inject_context=True)
    def enough(context: TaskExecutionContext) -> None:
        context.terminate_workflow("it knows enough")

    with workflow("done") as wf:
        step(task_id="before", home=str(tmp_path)) >> enough >> step(task_id="after", home=str(tmp_path))
    run = wf.submit(settings=graflow_settings)
    assert run.wait(timeout=30) is RunStatus.TERMINATED
    with pytest.raises(RetryRefusedError, match=r"its task 'enough' ended it .*--from NODE"):
        run.retry_failed()
    with pytest.raises(RetryRefusedError, match="'after' did not run in it"):
        run.retry_failed("after")
    with pytest.raises(UnknownNodeError, match="no node 'elsewhere'"):
        run.retry_failed(["before", "elsewhere"])
    run.retry_failed("before")
    assert run.wait(timeout=30) is RunStatus.TERMINATED
    assert ran(run) == Counter({"before": 2})


def test_of_two_who_retry_at_the_same_time_one_wins(graflow_settings: Settings, tmp_path: Path) -> None:
    with workflow("race") as wf:
        wf.add(gated(task_id="slow", home=str(tmp_path)))
    run = wf.submit(settings=graflow_settings)
    run.cancel()
    runtime = client_runtime(graflow_settings)
    together = threading.Barrier(6)
    told: list[str] = []

    def try_it() -> None:
        together.wait()
        try:
            retry(runtime, run.id)
            told.append("won")
        except RetryRefusedError as error:
            told.append(error.reason)

    threads = [threading.Thread(target=try_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told.count("won") == 1
    assert all("somebody else did it" in text or "goes on" in text for text in told if text != "won")
    assert events(run).count("run_retried") == 1
    for attempt in (1, 2):
        (tmp_path / f"open-{attempt}").touch()
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED


def test_who_dies_before_sending_leaves_it_to_the_monitor(graflow_settings: Settings, tmp_path: Path) -> None:
    with workflow("died") as wf:
        step(task_id="a", home=str(tmp_path), fails=True) >> step(task_id="b", home=str(tmp_path))
    run = wf.submit(settings=graflow_settings)
    assert run.wait(timeout=30) is RunStatus.FAILED
    (tmp_path / "mended").touch()
    runtime = client_runtime(graflow_settings)
    executor = runtime.engine.executor

    class Dead:
        def send(self, *_: object) -> None: ...

        def share(self, *_: object) -> None: ...

    runtime.engine.executor = Dead()
    try:
        retry(runtime, run.id)
    finally:
        runtime.engine.executor = executor
    assert run.wait(timeout=30) is RunStatus.SUCCEEDED
    assert ran(run) == Counter({"a": 2, "b": 1})


def test_a_run_whose_graph_left_the_store_is_refused(graflow_settings: Settings, tmp_path: Path) -> None:
    with workflow("gone") as wf:
        wf.add(step(task_id=f"only-{tmp_path.name}", home=str(tmp_path), fails=True))
    run = wf.submit(settings=graflow_settings)
    assert run.wait(timeout=30) is RunStatus.FAILED
    runtime = client_runtime(graflow_settings)
    runtime.client.delete(runtime.keys.blob(run.graph_hash))
    with pytest.raises(BlobMissingError, match=r"graph .* Submit the workflow again"):
        run.retry_failed()
    assert run.status is RunStatus.FAILED


def test_what_a_worker_had_not_begun_of_a_retried_run_is_given_back() -> None:
    with EmbeddedServer() as server:
        settings = load_settings(redis_url=server.url)
        with workflow("retried") as wf:
            ParallelGroup([gated(task_id=name, home="nowhere") for name in "ab"], name="g")
        run = wf.submit(settings=settings)
        run.cancel("to try it again")
        run.retry_failed()
        runtime = client_runtime(settings)
        reference = RunRef(run.id, runtime.store.details(run.id)["graph"])
        assert reference.first > 1
        runtime.give_back(Held(reference, "a", reference.first), "worker#1", "its worker shut down")
        assert [event["node"] for event in run.events() if event["event"] == "node_returned"] == ["a"]
        run.cancel("enough")
