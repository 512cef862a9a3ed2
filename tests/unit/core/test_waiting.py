"""A node that waits for a person: what the Scheduler decides, and what a run's state makes of it."""

from __future__ import annotations

from graflow_celery.core.commands import DispatchNode, ExpireFeedback
from graflow_celery.core.events import (
    Event,
    FeedbackAnswered,
    FeedbackExpired,
    FeedbackRequested,
    NodeSucceeded,
    RunStarted,
)
from graflow_celery.core.plan import Plan
from graflow_celery.core.scheduler import Scheduler
from graflow_celery.core.state import Applied, NodeState, RunState, RunStatus
from graflow_celery.core.task import Task
from graflow_celery.workflows import workflow


class Transcript:
    """Events in, commands out."""

    def __init__(self, plan: Plan) -> None:
        self.state = RunState()
        self._plan = plan
        self(RunStarted())

    def __call__(self, event: Event) -> Applied:
        applied = self.state.apply(Scheduler().decide(self._plan, event))
        self.state.check()
        return applied

    def timers(self) -> list[ExpireFeedback]:
        return [command for command in self.state.outbox if isinstance(command, ExpireFeedback)]


def alone() -> Transcript:
    with workflow("alone") as wf:
        Task("ask")
    transcript = Transcript(wf.plan())
    transcript.state.begin("ask", 1)
    return transcript


def side_by_side() -> Transcript:
    with workflow("side by side") as wf:
        Task("a") | Task("b")
    transcript = Transcript(wf.plan())
    for node in ("a", "b"):
        transcript.state.begin(node, 1)
        transcript(FeedbackRequested(node, 1, f"r-{node}", 5.0))
    return transcript


def test_an_answer_in_time() -> None:
    ask = alone()
    [timer] = ask(FeedbackRequested("ask", 1, "r-1", 5.0)).emissions
    assert (timer.command, timer.delay) == (ExpireFeedback("ask", 2, "r-1"), 5.0)
    assert ask.state.nodes["ask"].state is NodeState.WAITING
    assert ask.state.begin("ask", 2) is None
    [again] = ask(FeedbackAnswered("ask", 2, "r-1")).emissions
    assert again.command == DispatchNode("ask", 3)
    assert ask.timers() == []
    assert ask(FeedbackExpired("ask", 2, "r-1")).stale
    ask.state.begin("ask", 3)
    assert ask(NodeSucceeded("ask", 3)).status is RunStatus.SUCCEEDED


def test_without_a_timeout_no_time_is_ever_up() -> None:
    ask = alone()
    assert ask(FeedbackRequested("ask", 1, "r-1")).emissions == ()


def test_only_the_first_answer_counts() -> None:
    ask = alone()
    ask(FeedbackRequested("ask", 1, "r-1", 5.0))
    assert not ask(FeedbackAnswered("ask", 2, "r-1")).stale
    assert ask(FeedbackAnswered("ask", 2, "r-1")).stale


def test_a_late_answer() -> None:
    ask = alone()
    ask(FeedbackRequested("ask", 1, "r-1", 5.0))
    for _ in range(2):  # a timer may go off twice
        assert ask(FeedbackExpired("ask", 2, "r-1")).status is RunStatus.WAITING
    assert ask.timers() == []
    assert ask(FeedbackAnswered("ask", 2, "r-1")).status is RunStatus.RUNNING


def test_the_run_waits_as_long_as_anybody_is_late() -> None:
    both = side_by_side()
    assert both(FeedbackExpired("a", 2, "r-a")).status is RunStatus.WAITING
    assert both(FeedbackExpired("b", 2, "r-b")).status is RunStatus.WAITING
    assert both(FeedbackAnswered("a", 2, "r-a")).status is RunStatus.WAITING
    assert both(FeedbackAnswered("b", 2, "r-b")).status is RunStatus.RUNNING


def test_an_answer_in_time_leaves_the_run_waiting_for_another() -> None:
    both = side_by_side()
    both(FeedbackExpired("a", 2, "r-a"))
    assert both(FeedbackAnswered("b", 2, "r-b")).status is RunStatus.WAITING
    assert both(FeedbackAnswered("a", 2, "r-a")).status is RunStatus.RUNNING
