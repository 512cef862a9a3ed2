"""What a message's shift may do on this worker."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from graflow_celery.celery_backend.board import Line, Named
from graflow_celery.celery_backend.compiler import delivery
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.activation import node_of
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.core.policy import (
    AtLeastNGroupPolicy,
    BestEffortGroupPolicy,
    CriticalGroupPolicy,
    StrictGroupPolicy,
)
from graflow_celery.core.state import Applied
from graflow_celery.coroutines import HOST
from graflow_celery.engine.node import Host, NodeCode
from graflow_celery.engine.portions import LEAST_WORK, OVERHEAD
from graflow_celery.failpoints import Point, reach
from graflow_celery.logs import Origin, within
from graflow_celery.ports import Attempt, Members, RunRef

#: Policies whose verdict takes no time and calls no code of the user's.
_OURS = (StrictGroupPolicy, BestEffortGroupPolicy, AtLeastNGroupPolicy, CriticalGroupPolicy)

#: ``load(run, plan, node, worker)`` brings the code of a node.
Load = Callable[[RunRef, Plan, str, str], NodeCode]


class WorkerTerms:
    """See :class:`graflow_celery.engine.terms.Terms`.

    Args:
        opening: a node that the message was sent for: what follows must be delivered like it to go on here.
        owner: the message's id.
    """

    def __init__(
        self, here: Runtime, run: RunRef, plan: Plan, opening: str, worker: str, owner: str, line: Line, load: Load
    ) -> None:
        self._here = here
        self._run = run
        self._plan_name = plan.name
        self._worker = worker
        self._owner = owner
        self._line = line
        self._load = load
        options = plan[opening].options
        limited = options.time_limit is not None or options.soft_time_limit is not None
        self._fuses = here.settings.fuse != "off" and not limited
        self._delivery = delivery(options)
        self._contexts = {plan.graph: here.context(run, plan)}
        self.kinds: set[str] = set()
        self.closed: list[str] = []

    def host(self, plan: Plan, node: str) -> Host:
        if plan.graph not in self._contexts:
            self._contexts[plan.graph] = self._here.context(self._run, plan)
        return Host(
            context=self._contexts[plan.graph],
            load=partial(self._load, self._run, plan, node, self._worker),
            run_coroutine=partial(HOST.run, task_id=node_of(node), owner=self._owner),
            clock=time.perf_counter,
            random=random.random,
        )

    def kind(self, plan: Plan, node: str) -> str:
        return self._here.kind(self._run, plan, node)

    def expected(self, kind: str) -> float | None:
        return self._here.durations.expected(kind)

    def took(self, kind: str, seconds: float) -> None:
        self.kinds.add(kind)
        self._here.durations.took(kind, seconds)

    def goes_on(self, plan: Plan, node: str) -> bool:
        spec = plan[node]
        return self._fuses and not spec.is_group and delivery(spec.options) == self._delivery

    def opens(self, plan: Plan, group: str) -> bool:
        place = Place.of(plan, group)
        entries, dividing = place.spec.entries, self._here.dividing
        if not self._fuses or place.spec.map is not None or len(entries) * OVERHEAD > LEAST_WORK:
            return False
        if not all(self.goes_on(plan, entry) and dividing.batch_of(plan, entry) is None for entry in entries):
            return False
        expected = dividing.expected(self._run, plan, entries)
        return expected is not None and len(entries) * (expected + OVERHEAD) <= LEAST_WORK

    def closes(self, plan: Plan, group: str) -> bool:
        return self._fuses and isinstance(plan[group].policy, _OURS)

    def judge(self, plan: Plan, group: str) -> Applied:
        reach(Point.BARRIER_RECEIVED, group)
        self.closed.append(group)
        return self._here.engine.judge(self._run, plan, group)

    def commits_late(self) -> bool:
        return not self._here.wants_checkpoints(self._run)

    def share(self, plan: Plan, members: Members) -> None:
        self._here.engine.executor.share(self._run, plan, members)

    def holds(self, attempts: Sequence[Attempt], rest: Members | None) -> None:
        self._line.holds([_named(attempt) for attempt in attempts], rest)

    @contextmanager
    def begins(self, attempt: Attempt) -> Iterator[None]:
        self._line.runs(_named(attempt))
        with within(Origin(self._run.id, self._plan_name, attempt.node, attempt.number)):
            yield


def _named(attempt: Attempt) -> Named:
    return attempt.node, attempt.number, attempt.plan.graph_of(node_of(attempt.node))
