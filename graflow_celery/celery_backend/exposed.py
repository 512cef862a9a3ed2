"""The store, the sender and the ledger of workers with the failpoints between their steps. Made only for tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from celery import Celery, signals

from graflow_celery.celery_backend.compiler import Chord, Message
from graflow_celery.celery_backend.publisher import Acknowledge, CeleryExecutor, Headers
from graflow_celery.core.commands import Command
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import Applied, Transition
from graflow_celery.failpoints import Point, reach
from graflow_celery.ports import Attempt, Begun, Death, Late, Outcome, RunRef
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

    def begin(self, attempt: Attempt, scopes: Sequence[str], names: Sequence[str]) -> Begun | None:
        reach(Point.NODE_RECEIVED, attempt.node)
        begun = super().begin(attempt, scopes, names)
        reach(Point.NODE_BEGUN, attempt.node)
        return begun

    def commit(self, run: RunRef, transition: Transition, outcome: Outcome | None = None) -> Applied:
        before, after = _AROUND.get(transition.event, (None, None))
        if before is not None:
            reach(before, transition.node or "")
        applied = super().commit(run, transition, outcome)
        if after is not None:
            reach(after, transition.node or "")
        return applied

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
    def __init__(self, app: Celery, acknowledge: Acknowledge, headers: Headers) -> None:
        def acknowledged(run: RunRef, commands: Sequence[Command]) -> None:
            reach(Point.MESSAGES_SENT)
            acknowledge(run, commands)
            reach(Point.MESSAGES_ACKNOWLEDGED)

        super().__init__(app, acknowledged, headers)

    def send(self, run: RunRef, plan: Plan, commands: Sequence[Command], delay: float = 0.0) -> None:
        reach(Point.MESSAGES_MADE)
        super().send(run, plan, commands, delay)

    def _announce(self, chords: Sequence[Chord]) -> None:
        super()._announce(chords)
        if chords:
            reach(Point.MESSAGES_ANNOUNCED)

    def _publish(self, messages: Sequence[Message], delay: float) -> None:
        super()._publish(messages[:1], delay)
        if messages[1:]:
            reach(Point.MESSAGES_BROKEN_OFF)
            super()._publish(messages[1:], delay)


def install() -> None:
    """The point after Celery has counted a part of a chord."""

    def counted(sender: Any = None, **_: Any) -> None:
        args = sender.request.args if sender is not None and sender.request.group else None
        if args and sender.name.startswith("graflow."):
            reach(Point.PART_COUNTED, args[2])

    signals.task_success.connect(counted, weak=False, dispatch_uid="graflow-failpoint")
