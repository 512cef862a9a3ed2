"""The store, the sender and the ledger of workers with the failpoints between their steps. Made only for tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from celery import Celery

from graflow_celery.celery_backend.compiler import Divide, Message, one_each
from graflow_celery.celery_backend.publisher import Acknowledge, CeleryExecutor, Headers
from graflow_celery.core.commands import Command
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import Applied, Transition
from graflow_celery.failpoints import Point, reach
from graflow_celery.ports import Answer, Asked, Death, Late, RunRef, Step
from graflow_celery.redis_backend.liveness import Liveness
from graflow_celery.redis_backend.run_store import RedisRunStore

#: The points before and after the commit of an event.
_AROUND = {
    "node_succeeded": (Point.NODE_RAN, Point.NODE_COMMITTED),
    "node_failed": (Point.NODE_RAN, Point.NODE_COMMITTED),
    "node_retried": (Point.NODE_RAN, Point.NODE_COMMITTED),
    "map_expanded": (Point.GROUP_EXPANDING, Point.GROUP_EXPANDED),
    "group_succeeded": (Point.BARRIER_JUDGED, Point.BARRIER_COMMITTED),
    "group_failed": (Point.BARRIER_JUDGED, Point.BARRIER_COMMITTED),
    "node_lost": (Point.MONITOR_LOSING, Point.MONITOR_LOST),
    "node_returned": (Point.MONITOR_LOSING, Point.MONITOR_LOST),
}


class ExposedStore(RedisRunStore):
    def create(
        self,
        run: RunRef,
        transition: Transition,
        details: Mapping[str, str | int],
        channel: Mapping[str, Any] | None = None,
    ) -> Applied:
        applied = super().create(run, transition, details, channel)
        reach(Point.RUN_CREATED)
        return applied

    def advance(self, run: RunRef, taken: Sequence[Step]) -> list[Answer]:
        for step in taken:
            if isinstance(step, Asked):
                reach(Point.NODE_RECEIVED, step.attempt.node)
            elif (around := _AROUND.get(step.transition.event)) is not None:
                reach(around[0], step.transition.node or "")
        answers = super().advance(run, taken)
        for step in taken:
            if isinstance(step, Asked):
                reach(Point.NODE_BEGUN, step.attempt.node)
            elif (around := _AROUND.get(step.transition.event)) is not None:
                reach(around[1], step.transition.node or "")
        return answers

    def late(self, *, sweep: bool = False) -> Iterator[Late]:
        for late in super().late(sweep=sweep):
            if late.commands:
                reach(Point.MONITOR_CLAIMED)
            yield late


class ExposedLiveness(Liveness):
    def deaths(self) -> list[Death]:
        found = super().deaths()
        if found:
            reach(Point.MONITOR_DECLARED)
        return found

    def bury(self, death: Death) -> bool:
        reach(Point.MONITOR_BURYING)
        buried = super().bury(death)
        reach(Point.MONITOR_BURIED)
        return buried


class ExposedExecutor(CeleryExecutor):
    def __init__(self, app: Celery, acknowledge: Acknowledge, headers: Headers, divide: Divide = one_each) -> None:
        def acknowledged(run: RunRef, commands: Sequence[Command]) -> None:
            reach(Point.MESSAGES_SENT)
            acknowledge(run, commands)
            reach(Point.MESSAGES_ACKNOWLEDGED)

        super().__init__(app, acknowledged, headers, divide)

    def send(self, run: RunRef, plan: Plan, commands: Sequence[Command], delay: float = 0.0) -> None:
        reach(Point.MESSAGES_MADE)
        super().send(run, plan, commands, delay)

    def _publish(self, messages: Sequence[Message], delay: float) -> None:
        super()._publish(messages[:1], delay)
        if messages[1:]:
            reach(Point.MESSAGES_BROKEN_OFF)
            super()._publish(messages[1:], delay)
