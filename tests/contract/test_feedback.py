"""Tasks that ask people, in threads and on Celery workers. Every test with ``execute`` runs on both."""

from __future__ import annotations

from typing import Any

import pytest

from graflow_celery import (
    FeedbackHandler,
    FeedbackManager,
    FeedbackRequest,
    FeedbackResponse,
    FeedbackType,
    ParallelGroup,
    Run,
    Settings,
    TaskExecutionContext,
    task,
    workflow,
)
from graflow_celery.core.state import RunStatus
from graflow_celery.errors import FeedbackAnswerError, FeedbackNotFoundError, SerializationError
from graflow_celery.testing import embedded_cluster, wait_until
from tests.contract.conftest import Execute


class Person:
    """Answers what is asked, by prompt, and remembers it. A prompt without an answer is left open."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[FeedbackRequest] = []

    def __call__(self, request: FeedbackRequest) -> Any:
        self.asked.append(request)
        return self.answers.get(request.prompt)


@pytest.fixture
def manager(request: pytest.FixtureRequest) -> FeedbackManager:
    """Of the backend of the test's turn."""
    backend = request.node.callspec.params["execute"]
    settings: Settings | None = None
    if backend == "celery":
        settings = request.getfixturevalue("graflow_settings")
    return FeedbackManager(settings=settings)


@task(inject_context=True)
def approve(context: TaskExecutionContext) -> bool:
    return context.request_approval("deploy?")


@pytest.mark.parametrize(("given", "result"), [(True, True), (False, False), ("yes", True), ("No", False)])
def test_an_approval(execute: Execute, given: object, result: bool) -> None:
    with workflow("approval") as wf:
        approve(task_id="only")
    person = Person(**{"deploy?": given})
    assert execute(wf, feedback=person) is result
    [asked] = person.asked
    assert (asked.task_id, asked.feedback_type, asked.timeout) == ("only", FeedbackType.APPROVAL, 180.0)


def test_a_text_and_what_comes_after(execute: Execute) -> None:
    @task(inject_context=True)
    def ask(context: TaskExecutionContext) -> str:
        return context.request_text_input("name?", metadata={"why": ["a", 1]})

    @task
    def greet(ask: str) -> str:
        return f"hello {ask}"

    with workflow("text") as wf:
        ask >> greet
    person = Person(**{"name?": "Eve"})
    assert execute(wf, feedback=person) == "hello Eve"
    assert person.asked[0].metadata == {"why": ["a", 1]}


def test_selections_and_a_custom_answer_and_their_order(execute: Execute) -> None:
    @task(inject_context=True)
    def ask(context: TaskExecutionContext) -> list[Any]:
        color = context.request_selection("color?", ["red", "green"])
        several = context.request_feedback("multi_selection", "sizes?", ["s", "m", "l"]).selected_multiple
        custom = context.request_feedback(FeedbackType.CUSTOM, "numbers?").custom_data
        return [color, list(several or ()), custom]

    with workflow("three requests") as wf:
        ask(task_id="ask")
    person = Person(**{"color?": "green", "sizes?": ["s", "l"], "numbers?": {"n": [1, 2]}})
    assert execute(wf, feedback=person) == ["green", ["s", "l"], {"n": [1, 2]}]
    assert [request.prompt for request in person.asked] == ["color?", "sizes?", "numbers?"]
    assert len({request.feedback_id for request in person.asked}) == 3


def test_a_response_with_reason_and_name(execute: Execute) -> None:
    @task(inject_context=True)
    def ask(context: TaskExecutionContext) -> list[Any]:
        response = context.request_feedback("approval", "deploy?")
        return [response.approved, response.reason, response.responded_by, bool(response.responded_at)]

    with workflow("reasons") as wf:
        ask(task_id="ask")

    def answer(request: FeedbackRequest) -> FeedbackResponse:
        return FeedbackResponse(
            request.feedback_id, FeedbackType.APPROVAL, approved=False, reason="not on Friday", responded_by="Eve"
        )

    assert execute(wf, feedback=answer) == [False, "not on Friday", "Eve", True]


def test_members_of_a_group_ask_side_by_side(execute: Execute) -> None:
    @task(inject_context=True)
    def ask(context: TaskExecutionContext, name: str) -> str:
        return context.request_text_input(f"{name}?")

    @task
    def gather(both: dict[str, str]) -> list[str]:
        return sorted(both.values())

    with workflow("members ask") as wf:
        ParallelGroup([ask(task_id="a", name="a"), ask(task_id="b", name="b")], name="both") >> gather
    assert execute(wf, feedback=Person(**{"a?": "1", "b?": "2"})) == ["1", "2"]


def test_members_of_a_mapped_task_ask(execute: Execute) -> None:
    @task
    def names() -> list[str]:
        return ["x", "y", "z"]

    @task(inject_context=True)
    def ask(context: TaskExecutionContext, name: str) -> str:
        return context.request_text_input(f"{name}?")

    @task
    def gather(ask: list[str]) -> list[str]:
        return ask

    with workflow("items ask") as wf:
        names >> ask.map() >> gather
    assert execute(wf, feedback=Person(**{"x?": "1", "y?": "2", "z?": "3"})) == ["1", "2", "3"]


def test_an_added_task_asks(execute: Execute) -> None:
    @task(inject_context=True)
    def start(context: TaskExecutionContext) -> None:
        @task(inject_context=True)
        def added(context: TaskExecutionContext) -> str:
            return context.request_text_input("added?")

        context.next_task(added)

    @task(inject_context=True)
    def last(context: TaskExecutionContext) -> Any:
        return context.get_result("added")

    with workflow("an added task asks") as wf:
        start >> last
    assert execute(wf, feedback=Person(**{"added?": "it was"})) == "it was"


def test_a_retry_keeps_what_was_answered(execute: Execute) -> None:
    @task(inject_context=True, max_retries=2)
    def ask(context: TaskExecutionContext) -> list[Any]:
        name = context.request_text_input("name?")
        if context.retry_count < 2:
            raise ValueError("once more")
        return [name, context.request_text_input("last?"), context.retry_count]

    with workflow("retries") as wf:
        ask(task_id="ask")
    person = Person(**{"name?": "Eve", "last?": "Adam"})
    assert execute(wf, feedback=person) == ["Eve", "Adam", 2]
    assert [request.prompt for request in person.asked] == ["name?", "last?"]


def test_each_iteration_asks_anew(execute: Execute) -> None:
    @task(inject_context=True)
    def ask(context: TaskExecutionContext, names: list[str] | None = None) -> list[str]:
        so_far = [*(names or []), context.request_text_input(f"name {context.cycle_count}?")]
        if context.cycle_count < 3:
            context.next_iteration(so_far)
        return so_far

    with workflow("iterations") as wf:
        ask(task_id="ask")
    assert execute(wf, feedback=Person(**{"name 1?": "a", "name 2?": "b", "name 3?": "c"})) == ["a", "b", "c"]


def test_the_answer_is_in_the_channel_before_the_task_runs_and_once(execute: Execute) -> None:
    @task(inject_context=True)
    def ask(context: TaskExecutionContext) -> list[Any]:
        channel = context.get_channel()
        before = channel.get("name")
        context.request_text_input("name?", channel_key="name", write_to_channel=True)
        context.request_text_input("other?", channel_key="other")
        kept = channel.get("name.__feedback_response__")
        if before == "Eve":
            channel.set("name", "changed")
        return [before, channel.get("name"), channel.get("other"), kept["text"]]

    with workflow("channel") as wf:
        ask(task_id="ask")
    # Runs: asks; name answered, asks on; other answered. The second run sees the name, the third what the second left.
    assert execute(wf, feedback=Person(**{"name?": "Eve", "other?": "Adam"})) == ["Eve", "changed", None, "Eve"]


def test_nobody_answers_then_somebody_does(
    execute: Execute, manager: FeedbackManager, caplog: pytest.LogCaptureFixture
) -> None:
    @task(inject_context=True)
    def ask(context: TaskExecutionContext) -> str:
        return context.request_text_input("name?", timeout=0.5)

    @task
    def after(ask: str) -> str:
        return f"hello {ask}"

    with workflow("late") as wf:
        ask >> after
    result, context = execute(wf, ret_context=True)
    assert result is None
    assert "waits for a person" in caplog.text
    [asked] = manager.list_pending_requests(context.session_id)
    assert (asked.prompt, asked.status, asked.is_open) == ("name?", "timeout", True)
    assert manager.get_response(asked.feedback_id) is None

    assert manager.provide_feedback(asked.feedback_id, "Eve") is True
    wait_until(lambda: context.get_result("after") is not None, description="the run to go on")
    assert context.get_result("after") == "hello Eve"
    assert manager.provide_feedback(asked.feedback_id, "Adam") is False


def test_one_of_two_is_answered_the_run_waits_for_the_other(execute: Execute, manager: FeedbackManager) -> None:
    @task(inject_context=True)
    def ask(context: TaskExecutionContext, name: str) -> str:
        return context.request_text_input(f"{name}?", timeout=0.3)

    with workflow("two are late") as wf:
        ask(task_id="a", name="a") | ask(task_id="b", name="b")
    result, context = execute(wf, ret_context=True)
    assert result is None
    wait_until(
        lambda: [request.status for request in manager.list_pending_requests(context.session_id)] == ["timeout"] * 2,
        description="both to be late",
    )
    first, second = manager.list_pending_requests(context.session_id)
    assert manager.provide_feedback(first.feedback_id, "1")
    wait_until(lambda: context.get_result(first.task_id) == "1", description="the first to go on")
    assert [request.feedback_id for request in manager.list_pending_requests(context.session_id)] == [
        second.feedback_id
    ]
    assert manager.provide_feedback(second.feedback_id, "2")
    wait_until(lambda: context.get_result(second.task_id) == "2", description="the second to go on")


def test_a_handler_is_told_of_everything_and_its_errors_change_nothing(execute: Execute) -> None:
    told: list[tuple[str, str]] = []

    class Handler(FeedbackHandler):
        def on_request_created(self, request: FeedbackRequest) -> Any:
            told.append(("asked", request.prompt))
            return "yes" if request.prompt == "deploy?" else None

        def on_response_received(self, request: FeedbackRequest, response: FeedbackResponse) -> None:
            told.append(("answered", request.prompt))
            raise RuntimeError("of no interest")

        def on_request_timeout(self, request: FeedbackRequest) -> None:
            told.append(("late", request.prompt))

    @task(inject_context=True)
    def ask(context: TaskExecutionContext) -> str:
        context.request_approval("deploy?")
        return context.request_text_input("name?", timeout=0.3)

    with workflow("told") as wf:
        ask(task_id="ask")
    assert execute(wf, feedback=Handler()) is None
    wait_until(lambda: len(told) == 4, description="the handler to be told")
    assert sorted(told) == [("answered", "deploy?"), ("asked", "deploy?"), ("asked", "name?"), ("late", "name?")]


def test_a_request_that_json_cannot_hold_fails_the_task(execute: Execute) -> None:
    @task(inject_context=True, max_retries=1)
    def ask(context: TaskExecutionContext) -> str:
        return context.request_text_input("name?", metadata={"set": {1, 2}})

    with workflow("no JSON") as wf:
        ask(task_id="ask")
    with pytest.raises(SerializationError, match="Request for feedback of task 'ask'"):
        execute(wf)


@pytest.mark.workers
class TestRun:
    """What `Run` does, on workers."""

    def ask(self, settings: Settings, **options: Any) -> Run:
        @task(inject_context=True)
        def ask(context: TaskExecutionContext) -> str:
            return context.request_selection("color?", ["red", "green"], **options)

        with workflow("run") as wf:
            ask(task_id="ask")
        run = wf.submit(settings=settings)
        wait_until(lambda: bool(run.feedback()), description="the task to ask")
        return run

    def test_wrong_answers_are_refused_and_the_request_stays_open(self, graflow_settings: Settings) -> None:
        run = self.ask(graflow_settings)
        [asked] = run.feedback()
        with pytest.raises(FeedbackAnswerError, match=r"blue is no option\. Choose from: red, green"):
            run.answer(asked.feedback_id, "blue")
        with pytest.raises(FeedbackAnswerError, match="it asks for a selection, not for an approval"):
            run.answer(asked.feedback_id, FeedbackResponse(asked.feedback_id, FeedbackType.APPROVAL, approved=True))
        with pytest.raises(FeedbackNotFoundError, match=f"{run.id}-nothing"):
            run.answer(f"{run.id}-nothing", "red")
        assert run.feedback() == [asked]
        run.answer(asked.feedback_id, "red", by="Eve")
        assert run.wait(timeout=30) is RunStatus.SUCCEEDED
        assert run.result() == "red"
        with pytest.raises(FeedbackAnswerError, match="it was answered already by Eve"):
            run.answer(asked.feedback_id, "green")

    def test_a_run_that_ended_takes_no_answer(self, graflow_settings: Settings) -> None:
        run = self.ask(graflow_settings)
        [asked] = run.feedback()
        run.cancel()
        with pytest.raises(FeedbackAnswerError, match="nothing waits for the answer any more"):
            run.answer(asked.feedback_id, "red")
        assert [request.status for request in run.feedback()] == ["cancelled"]

    def test_the_run_is_waiting_as_long_as_one_of_two_is_late(self, graflow_settings: Settings) -> None:
        @task(inject_context=True)
        def ask(context: TaskExecutionContext) -> str:
            return context.request_text_input("name?", timeout=0.3)

        with workflow("two") as wf:
            ask(task_id="a") | ask(task_id="b")
        run = wf.submit(settings=graflow_settings)
        wait_until(lambda: [request.status for request in run.feedback()] == ["timeout"] * 2, description="both late")
        first, second = run.feedback()
        run.answer(first.feedback_id, "1")
        wait_until(lambda: first.task_id in run.results(), description="the first to go on")
        assert run.wait(timeout=30) is RunStatus.WAITING
        run.answer(second.feedback_id, "2")
        assert run.wait(timeout=30) is RunStatus.SUCCEEDED
        assert run.result() == {first.task_id: "1", second.task_id: "2"}

    def test_a_second_wait_does_not_stop_at_the_first_ones_end(self, graflow_settings: Settings) -> None:
        run = self.ask(graflow_settings, timeout=0.3)
        assert run.wait(timeout=30) is RunStatus.WAITING
        assert run.wait(timeout=30) is RunStatus.WAITING
        [asked] = run.feedback()
        run.answer(asked.feedback_id, "green")
        assert run.wait(timeout=30) is RunStatus.SUCCEEDED
        assert run.result() == "green"
        events = [str(record["event"]) for record in run.events()]
        assert events.count("run_waiting") == 1
        assert run.wait(timeout=30, progress=lambda record: None) is RunStatus.SUCCEEDED


@pytest.mark.workers
def test_a_worker_of_one_process_does_other_work_while_a_task_waits() -> None:
    @task
    def other() -> str:
        return "done meanwhile"

    with workflow("waiting") as waiting:
        approve(task_id="ask")
    with workflow("other") as working:
        other(task_id="other")
    with embedded_cluster(workers=1) as cluster:
        run = waiting.submit(settings=cluster.settings)
        wait_until(lambda: bool(run.feedback()), description="the task to ask")
        result = working.execute(backend="celery", settings=cluster.settings, timeout=30)
        assert result == "done meanwhile"
        assert run.status is RunStatus.RUNNING
        [asked] = run.feedback()
        run.answer(asked.feedback_id, True)
        assert run.wait(timeout=30) is RunStatus.SUCCEEDED
