"""What an answer means, whether it fits, and how a run in threads waits for one."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from graflow_celery import (
    FeedbackHandler,
    FeedbackManager,
    FeedbackRequest,
    FeedbackResponse,
    FeedbackType,
    SlackFeedbackHandler,
    TaskExecutionContext,
    WebhookFeedbackHandler,
    task,
)
from graflow_celery.core.state import RunStatus
from graflow_celery.engine.feedback import feedback_id, run_of
from graflow_celery.engine.feedback_desk import as_response, check_response
from graflow_celery.errors import ConfigError, FeedbackAnswerError
from graflow_celery.local import LocalRun, open_run
from graflow_celery.testing import wait_until
from graflow_celery.workflows import WorkflowContext, workflow


def asking(kind: str, *options: str) -> FeedbackRequest:
    return FeedbackRequest("run-1", "ask", "run", FeedbackType(kind), "?", options or None)


@pytest.mark.parametrize(
    ("kind", "value", "meaning"),
    [
        ("approval", True, True),
        ("approval", " Yes. ", True),
        ("approval", "n", False),
        ("approval", "rejected", False),
        ("text", "some text", "some text"),
        ("text", 5, "5"),
        ("selection", "a", "a"),
        ("multi_selection", "a", ["a"]),
        ("multi_selection", ["a", "b"], ["a", "b"]),
        ("multi_selection", [], []),
        ("custom", {"n": [1]}, {"n": [1]}),
    ],
)
def test_what_a_value_means(kind: str, value: object, meaning: object) -> None:
    request = asking(kind, "a", "b")
    response = as_response(request, value, reason="because", by="Eve")
    check_response(request, response)
    assert response.value == meaning
    assert (response.reason, response.responded_by, response.feedback_id) == ("because", "Eve", "run-1")


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        ("approval", "perhaps", "answer yes or no, not 'perhaps'"),
        ("approval", 1, "answer yes or no, not 1"),
        ("approval", FeedbackResponse("run-1", FeedbackType.APPROVAL), "neither yes nor no"),
        ("approval", FeedbackResponse("run-1", FeedbackType.TEXT, text="x"), "for an approval, not for a text"),
        ("selection", "c", "c is no option. Choose from: a, b"),
        ("multi_selection", ["a", "c", "d"], "c, d is no option"),
        ("custom", {1, 2}, "JSON cannot hold the answer"),
    ],
)
def test_an_answer_that_does_not_fit(kind: str, value: object, told: str) -> None:
    request = asking(kind, "a", "b")
    with pytest.raises(FeedbackAnswerError, match="Request run-1 cannot be answered like that") as caught:
        check_response(request, as_response(request, value))
    assert told in str(caught.value)


@pytest.mark.parametrize("kind", list(FeedbackType))
def test_requests_and_responses_survive_json(kind: FeedbackType) -> None:
    response = FeedbackResponse(
        "run-1", kind, True, "why", "text", "a", ("a", "b"), {"n": 1}, "2026-01-01T00:00:00", "Eve"
    )
    request = FeedbackRequest(
        "run-1", "ask", "run", kind, "?", ("a", "b"), {"k": [1]}, 5.0, "key", True, "now", "completed", response
    )
    assert FeedbackResponse.from_dict(response.to_dict()) == response
    assert FeedbackRequest.from_dict(request.to_dict()) == request


def test_ids_name_their_run_and_tell_requests_apart() -> None:
    ids = {
        feedback_id("run-of-mine", node, cycle, number)
        for node in ("a", "a 1", "a@1~2")
        for cycle in range(3)
        for number in range(1, 4)
    }
    assert len(ids) == 27
    assert {run_of(found) for found in ids} == {"run-of-mine"}


def test_a_manager_knows_two_backends() -> None:
    with pytest.raises(ConfigError, match="'local' for those of this process, 'celery' for those on workers"):
        FeedbackManager("filesystem")  # type: ignore[arg-type]


@task(inject_context=True)
def ask(context: TaskExecutionContext, seconds: float | None = 0.2) -> str:
    return context.request_text_input("name?", timeout=seconds)


def asking_alone(seconds: float = 0.2) -> WorkflowContext:
    with workflow("asking") as wf:
        ask(task_id="ask", seconds=seconds)
    return wf


def test_execute_blocks_until_another_thread_answers() -> None:
    manager = FeedbackManager()
    asked: list[FeedbackRequest] = []

    def mine() -> list[FeedbackRequest]:
        return [request for request in manager.list_pending_requests() if request.prompt == "from another thread?"]

    def answer() -> None:
        wait_until(lambda: bool(mine()), description="the task to ask")
        asked.extend(mine())
        assert manager.provide_feedback(asked[0].feedback_id, "Eve")

    @task(inject_context=True)
    def alone(context: TaskExecutionContext) -> str:
        return context.request_text_input("from another thread?", timeout=None)

    with workflow("alone") as wf:
        wf.add(alone)
    other = threading.Thread(target=answer)
    other.start()
    assert wf.execute(timeout=30) == "Eve"
    other.join()
    assert [request.status for request in asked] == ["pending"]
    assert mine() == []
    assert manager.get_request(asked[0].feedback_id) is None


def test_a_run_rests_only_when_nothing_else_is_to_be_done() -> None:
    late = threading.Event()

    @task
    def busy() -> str:
        assert late.wait(30)
        return "done"

    @task
    def after(busy: str) -> str:
        return f"after {busy}"

    with workflow("busy") as wf:
        ask(task_id="ask") | (busy >> after)

    def progress(record: Any) -> None:
        if record["event"] == "run_waiting":
            late.set()

    result, context = wf.execute(ret_context=True, progress=progress, timeout=30)
    assert result is None
    assert context.get_result("after") == "after done"


def test_a_group_whose_time_is_up_does_not_wait_for_a_person() -> None:
    @task
    def after() -> str:
        return "went on"

    with workflow("group") as wf:
        group = ask(task_id="ask") | ask(task_id="other")
        group.with_execution(policy="best_effort", timeout=0.6) >> after
    assert wf.execute(timeout=30) == "went on"


def test_what_a_rested_run_has_is_dropped_when_it_has_ended() -> None:
    run = LocalRun(asking_alone())
    assert run.execute(timeout=30) is None
    assert open_run(run.run.id) is run
    [asked] = run.feedback()
    run.answer(asked.feedback_id, "Eve")
    assert run.settle(timeout=30)
    assert run.result() == "Eve"
    wait_until(lambda: open_run(run.run.id) is None, description="the run to be forgotten")
    with pytest.raises(FeedbackAnswerError, match="it was answered already"):
        run.answer(asked.feedback_id, "Adam")


def test_a_cancelled_run_takes_no_answer() -> None:
    run = LocalRun(asking_alone())
    assert run.execute(timeout=30) is None
    run.cancel("enough")
    assert open_run(run.run.id) is None
    [asked] = run.feedback()
    assert asked.status == "cancelled"
    with pytest.raises(FeedbackAnswerError, match="nothing waits for the answer any more"):
        run.answer(asked.feedback_id, "Eve")


def test_a_task_that_asks_something_else_the_second_time() -> None:
    runs: list[int] = []

    @task(inject_context=True)
    def fickle(context: TaskExecutionContext) -> object:
        runs.append(1)
        return context.request_text_input("?") if len(runs) == 1 else context.request_approval("?")

    with workflow("fickle") as wf:
        fickle(task_id="fickle")
    with pytest.raises(FeedbackAnswerError, match="asks for approval where it asked for text before"):
        wf.execute(feedback=lambda request: "text", timeout=30)


def test_an_unfit_answer_of_a_handler_is_logged_and_leaves_the_request_open(caplog: pytest.LogCaptureFixture) -> None:
    @task(inject_context=True)
    def choose(context: TaskExecutionContext) -> str:
        return context.request_selection("color?", ["red"], timeout=0.2)

    with workflow("choose") as wf:
        choose(task_id="choose")
    assert wf.execute(feedback=lambda request: "blue", timeout=30) is None
    assert "blue is no option" in caplog.text


def test_the_run_waits_as_long_as_one_of_two_is_late() -> None:
    with workflow("two") as wf:
        ask(task_id="a") | ask(task_id="b")
    run = LocalRun(wf)
    assert run.execute(timeout=30) is None
    wait_until(lambda: [request.status for request in run.feedback()] == ["timeout"] * 2, description="both late")
    first, second = run.feedback()
    run.answer(first.feedback_id, "1")
    assert run.settle(timeout=30)
    assert run.store.status is RunStatus.WAITING
    run.answer(second.feedback_id, "2")
    wait_until(lambda: run.store.status is RunStatus.SUCCEEDED, description="the run to end")


def test_handlers_that_post_to_the_web() -> None:
    posted: list[dict[str, Any]] = []

    class Address(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

    request = FeedbackRequest("run-1", "ask", "run", FeedbackType.APPROVAL, "deploy?")
    response = FeedbackResponse("run-1", FeedbackType.APPROVAL, approved=True)
    with HTTPServer(("127.0.0.1", 0), Address) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        url = f"http://127.0.0.1:{server.server_port}/hook"
        WebhookFeedbackHandler(url).on_request_created(request)
        WebhookFeedbackHandler(url).on_response_received(replace(request, response=response), response)
        WebhookFeedbackHandler(url).on_request_timeout(request)
        SlackFeedbackHandler(url).on_request_created(request)
        SlackFeedbackHandler(url, "#ops", "https://ui/").on_request_timeout(request)
        server.shutdown()
        serving.join()
    assert [said.get("event") for said in posted[:3]] == ["feedback_requested", "feedback_answered", "feedback_expired"]
    assert posted[0]["request"]["prompt"] == "deploy?"
    assert posted[1]["response"]["approved"] is True
    assert posted[3]["channel"] == "#approvals"
    assert "graflow-celery feedback answer run-1 ..." in posted[3]["text"]
    assert posted[4] == {"channel": "#ops", "text": "Task ask still waits: deploy?\nAnswer: https://ui/run-1"}
    with pytest.raises(ConfigError, match="has to begin with http"):
        WebhookFeedbackHandler("file:///etc/passwd")


def test_a_request_has_a_handler_of_its_own_that_is_told_once() -> None:
    told: list[str] = []

    class Own(FeedbackHandler):
        def on_request_created(self, request: FeedbackRequest) -> None:
            told.append(request.prompt)

    @task(inject_context=True)
    def own(context: TaskExecutionContext) -> list[object]:
        first = context.request_feedback("text", "1?", handler=Own()).text
        return [first, context.request_feedback("text", "2?", handler=Own()).text]

    with workflow("own") as wf:
        own(task_id="own")
    assert wf.execute(feedback=lambda request: request.prompt, timeout=30) == ["1?", "2?"]
    assert told == ["1?", "2?"]
