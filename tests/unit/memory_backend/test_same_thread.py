"""Where one node is ready it runs on the thread that is there; whoever has to run beside others gets a thread."""

from __future__ import annotations

import threading

from graflow_celery import ParallelGroup, TaskExecutionContext, chain, task, workflow
from graflow_celery.core.expr import Executable
from graflow_celery.local import LocalRun, open_run


def seen_by(name: str, threads: list[int]) -> Executable:
    @task(name)
    def note() -> None:
        threads.append(threading.get_ident())

    return note


def test_a_chain_stays_on_one_thread() -> None:
    threads: list[int] = []
    with workflow("chain") as wf:
        chain(*(seen_by(f"n{number}", threads) for number in range(200)))
    wf.execute()
    assert len(threads) == 200
    assert len(set(threads)) == 1


def test_members_that_wait_for_each_other_have_threads_of_their_own() -> None:
    together = threading.Barrier(4, timeout=10)

    def member(number: int) -> Executable:
        @task(f"m{number}")
        def meet() -> int:
            return together.wait()

        return meet

    with workflow("meeting") as wf:
        seen_by("before", []) >> ParallelGroup([member(number) for number in range(4)], name="g")
    assert sorted(LocalRun(wf, threads=4).execute(timeout=10).values()) == [0, 1, 2, 3]


def test_branches_that_follow_one_node_run_side_by_side() -> None:
    together = threading.Barrier(2, timeout=10)
    with workflow("branches") as wf:

        @task
        def left() -> int:
            return together.wait()

        @task
        def right() -> int:
            return together.wait()

        before = seen_by("before", [])
        before >> left
        before >> right
    wf.execute(timeout=10)


def test_code_that_answers_a_node_of_its_own_run_may_wait_for_what_follows() -> None:
    asked, went_on = threading.Event(), threading.Event()
    with workflow("answering") as wf:

        @task(inject_context=True)
        def asks(context: TaskExecutionContext) -> None:
            context.request_approval("Go on?")
            went_on.set()

        @task(inject_context=True)
        def answers(context: TaskExecutionContext) -> bool:
            assert asked.wait(10)
            run = open_run(context.session_id)
            assert run is not None
            [request] = run.feedback()
            run.answer(request.feedback_id, True)
            return went_on.wait(10)

        ParallelGroup([asks, answers], name="g")
    told = LocalRun(wf, threads=4, feedback=lambda request: asked.set())
    assert told.execute(timeout=20)["answers"] is True
