"""How many members of a group a message is for, from what is known of their code and of the workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from graflow_celery.core.plan import Plan
from graflow_celery.core.scheduler import losses_allowed
from graflow_celery.engine.portions import portions
from graflow_celery.ports import RunRef
from graflow_celery.redis_backend.durations import Durations

#: Seconds for which the number of processes is taken to be what it was.
FRESH = 5.0
#: Kinds of members that are looked at to tell how long one takes.
KINDS = 64


class Dividing:
    """See :data:`graflow_celery.celery_backend.compiler.Divide`.

    Args:
        kind: what nodes have in common that take about as long: ``kind(run, plan, node)``.
        processes: asks how many tasks run at the same time.
        batch: the setting. ``max_losses``: the setting of that name.
    """

    def __init__(
        self,
        durations: Durations,
        kind: Callable[[RunRef, Plan, str], str],
        processes: Callable[[], int],
        batch: int | str,
        max_losses: int,
    ) -> None:
        self._durations = durations
        self._kind = kind
        self._ask = processes
        self._batch = batch
        self._max_losses = max_losses
        self._processes = (-FRESH, 0)

    def __call__(self, run: RunRef, plan: Plan, nodes: Sequence[str]) -> Sequence[int]:
        if len(nodes) == 1 or not self.may_share(plan, nodes[0]):
            return [1] * len(nodes)
        chosen = plan[nodes[0]].options.batch or self._batch
        if isinstance(chosen, int):
            return portions(len(nodes), None, 1, chosen)
        return portions(len(nodes), self.expected(run, plan, nodes), self._count())

    def may_share(self, plan: Plan, node: str) -> bool:
        """Whether a member may have a message together with others.

        Celery's limits of time are those of a message. One that may lose no process must not share one with others.
        """
        options = plan[node].options
        limited = options.time_limit is not None or options.soft_time_limit is not None
        return not limited and losses_allowed(options, self._max_losses) > 1

    def expected(self, run: RunRef, plan: Plan, nodes: Sequence[str]) -> float | None:
        """Seconds that one of them takes, on the average; None if too little is known."""
        step = max(1, len(nodes) // KINDS)
        kinds = [self._kind(run, plan, node) for node in nodes[::step]]
        known = self._durations.learn(kinds)
        found = [mean for kind in kinds if (mean := known[kind]) is not None]
        return sum(found) / len(found) if len(found) == len(kinds) else None

    def _count(self) -> int:
        asked, count = self._processes
        if time.monotonic() - asked > FRESH:
            count = self._ask()
            self._processes = (time.monotonic(), count)
        return count
