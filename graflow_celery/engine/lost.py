"""What becomes of an attempt that will not come to its end: lost, given back, or past its time."""

from __future__ import annotations

import logging
from collections.abc import Callable

from graflow_celery.core.events import NodeFailed, NodeLost, NodeReturned
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan, TaskOptions
from graflow_celery.core.scheduler import losses_allowed
from graflow_celery.core.state import Applied
from graflow_celery.engine.runner import Engine
from graflow_celery.errors import TimeLimitError, WorkerLostError
from graflow_celery.ports import NodeReport, Outcome, Random, RunRef

logger = logging.getLogger(__name__)

#: Has every worker stop what it still runs of a run and is not wanted any more.
StopStale = Callable[[RunRef], None]


class Losses:
    """Reports attempts that are lost, and sees to the groups that cannot be met any more because of it.

    Args:
        max_losses: how many processes a node may lose that does not say so itself.
        stop: called when attempts that may still run are not wanted any more. It must not raise.
    """

    def __init__(self, engine: Engine, max_losses: int, random: Random, stop: StopStale) -> None:
        self._engine = engine
        self._max_losses = max_losses
        self._random = random
        self._stop = stop

    def lost(self, run: RunRef, plan: Plan, node: str, report: NodeReport, cause: str) -> Applied:
        """The process that ran the attempt is gone, or counts as gone. ``cause`` says which, and since when."""
        place = Place.of(plan, node)
        reason = _reason(place.spec.options, report.losses + 1, self._max_losses, cause)
        event = NodeLost(node, report.attempt, report.losses, self._max_losses, reason, report.holder, self._random())
        applied = self._tell(
            run,
            place,
            event,
            Outcome(error=WorkerLostError(place.spec.id, reason), worker=report.worker, reported=True),
        )
        given_up = report.losses + 1 >= losses_allowed(place.spec.options, self._max_losses)
        if given_up and not applied.stale and (self._give_up(run, place) or applied.status.is_terminal):
            self._stop(run)
        return applied

    def returned(self, run: RunRef, plan: Plan, node: str, report: NodeReport | None, cause: str) -> Applied:
        """The attempt did not end and was not at fault; nor need its process be dead."""
        attempt, holder = (run.first, "") if report is None else (report.attempt, report.holder)
        outcome = Outcome(worker="" if report is None else report.worker, reported=True)
        return self._tell(run, Place.of(plan, node), NodeReturned(node, attempt, cause, holder), outcome)

    def overdue(self, run: RunRef, plan: Plan, node: str, report: NodeReport) -> Applied:
        """It runs past its time limit, and whoever should have ended it did not."""
        place = Place.of(plan, node)
        reason = f"it ran past its time_limit of {place.spec.options.time_limit:g} s on worker {report.worker}"
        event = NodeFailed(
            node, report.attempt, f"TimeLimitError: {reason}", True, report.retries, self._random(), counted=False
        )
        outcome = Outcome(error=TimeLimitError(place.spec.id, reason), worker=report.worker, reported=True)
        applied = self._tell(run, place, event, outcome)
        if not applied.stale:
            self._stop(run)
        return applied

    def _tell(
        self, run: RunRef, place: Place, event: NodeLost | NodeReturned | NodeFailed, outcome: Outcome
    ) -> Applied:
        applied = self._engine.deliver(run, place.plan, event, outcome)
        if not applied.stale:
            logger.warning("run %s: '%s': %s", run.id, place.key, event.reason)
        return applied

    def _give_up(self, run: RunRef, place: Place) -> bool:
        """Closes the groups around a lost node whose policies cannot be met any more, from the inside out."""
        closed = False
        while place.spec.group is not None or place.spec.owner is not None:
            if (owner := place.spec.owner) is not None:  # which failed with the tasks that it had added
                place = Place.of(self._engine.graphs.plan_for(run, owner.graph), owner.node)
                continue
            place = place.around
            if self._engine.close_if_hopeless(run, place.plan, place.key) is None:
                break
            closed = True
        return closed


def _reason(options: TaskOptions, losses: int, max_losses: int, cause: str) -> str:
    allowed = losses_allowed(options, max_losses)
    if options.on_worker_loss == "fail":
        return f"{cause}, and on_worker_loss='fail'"
    if losses < allowed:
        return f"{cause}; it runs again elsewhere (loss {losses} of {allowed})"
    return (
        f"{cause}; it has lost {losses} processes, as many as max_losses={allowed} allows. Is it out of memory? "
        f"Give it more, or allow more losses: max_losses=..."
    )
