"""How many members of a group a message is for, from what is known of their code and of the workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from graflow_celery.core.plan import Plan
from graflow_celery.core.scheduler import losses_allowed
from graflow_celery.engine.portions import portions
from graflow_celery.ports import RunRef
from graflow_celery.redis_backend.durations import KINDS, Durations


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
        self._processes = processes
        self._batch = batch
        self._max_losses = max_losses

    def __call__(self, run: RunRef, plan: Plan, nodes: Sequence[str]) -> Sequence[int]:
        chosen = self.batch_of(plan, nodes[0])
        if chosen is not None or len(nodes) == 1:
            return portions(len(nodes), None, 1, chosen or 1)
        return portions(len(nodes), self.expected(run, plan, nodes), self._processes())

    def batch_of(self, plan: Plan, node: str) -> int | None:
        """How many members like this one have a message together; None if that depends on how long they take."""
        if not self._may_share(plan, node):
            return 1
        spec = plan[node]
        chosen = spec.options.batch or (plan[spec.group].batch if spec.group is not None else None) or self._batch
        return chosen if isinstance(chosen, int) else None

    def _may_share(self, plan: Plan, node: str) -> bool:
        """Whether a member may have a message together with others.

        Celery's limits of time are those of a message. One that may lose no process must not share one with others.
        Where so many are to run at a time, each that ends begins the next.
        """
        spec = plan[node]
        options, around = spec.options, plan[spec.group] if spec.group is not None else spec
        limited = options.time_limit is not None or options.soft_time_limit is not None
        few = around.map is not None and around.map.max_parallel is not None
        return not limited and not few and losses_allowed(options, self._max_losses) > 1

    def expected(self, run: RunRef, plan: Plan, nodes: Sequence[str]) -> float | None:
        """Seconds that one of them takes, on the average; None if too little is known."""
        step = max(1, len(nodes) // KINDS)
        kinds = [self._kind(run, plan, node) for node in nodes[::step]]
        known = self._durations.learn(kinds)
        found = [mean for kind in kinds if (mean := known[kind]) is not None]
        return sum(found) / len(found) if len(found) == len(kinds) else None
