"""What becomes of an attempt that will not come to its end: lost, given back, or past its time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from graflow_celery.core.events import NodeFailed, NodeLost, NodeReturned
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan, TaskOptions
from graflow_celery.core.scheduler import losses_allowed
from graflow_celery.core.state import Applied, NodeState
from graflow_celery.engine.runner import Engine
from graflow_celery.errors import TimeLimitError, UnavailableError, WorkerLostError
from graflow_celery.ports import Held, Members, NodeReport, Outcome, Random, RunRef

logger = logging.getLogger(__name__)

#: Has every worker stop what it still runs of a run and is not wanted any more.
StopStale = Callable[[RunRef], None]
Reports = Callable[[RunRef, Sequence[str]], Sequence[NodeReport | None]]
#: Members that are looked at at a time.
SLICE = 500


class Losses:
    """Reports attempts that are lost, and sees to the groups that cannot be met any more because of it.

    Args:
        reports: what the store has of some nodes.
        max_losses: how many processes a node may lose that does not say so itself.
        stop: called when attempts that may still run are not wanted any more. It must not raise.
    """

    def __init__(self, engine: Engine, reports: Reports, max_losses: int, random: Random, stop: StopStale) -> None:
        self._engine = engine
        self._reports = reports
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

    def left(
        self, run: RunRef, held: Held, holder: str, cause: str, *, blameless: bool = False, together: bool = True
    ) -> int:
        """What a dead process, or one that will not go on, had: what it ran is lost, what it had not begun goes to
        others. Returns how many attempts that were.

        Args:
            holder: the worker whose process that was.
            blameless: what it ran was not at fault either, and counts as not begun.
            together: members that were not begun may share messages again.
        """
        plan = self._engine.graphs.plan_for(run, held.added)
        if held.members is None:
            [report] = self._reports(run, [held.node])
            return self._left(run, plan, (held.node, held.attempt, report), holder, cause, blameless)
        group, (first, count) = Place.of(plan, held.node), held.members
        done, unbegun = 0, 0
        for start in range(first, first + count, SLICE):
            numbers = range(start, min(start + SLICE, first + count))
            nodes = [group.start(number) for number in numbers]
            for number, node, report in zip(numbers, nodes, self._reports(run, nodes), strict=True):
                if report is None and together:
                    unbegun += 1
                    continue
                done += self._left(run, plan, (node, held.attempt, report), holder, cause, blameless)
                done += self._share(run, plan, held, number - unbegun, unbegun)
                unbegun = 0
        return done + self._share(run, plan, held, first + count - unbegun, unbegun)

    def _left(
        self,
        run: RunRef,
        plan: Plan,
        attempt: tuple[str, int, NodeReport | None],
        holder: str,
        cause: str,
        blameless: bool,
    ) -> int:
        node, number, report = attempt
        if report is not None and report.attempt != number:
            return 0
        if report is None and Place.of(plan, node).number < 0:  # nothing has led to it yet
            return 0
        if report is None or report.state is NodeState.QUEUED:
            applied = self.returned(run, plan, node, report, f"{cause} before it began this")
        elif report.holder == holder and blameless:
            applied = self.returned(run, plan, node, report, cause)
        elif report.holder == holder:
            applied = self.lost(run, plan, node, report, f"{cause} while it ran this")
        else:
            return 0
        return int(not applied.stale)

    def _share(self, run: RunRef, plan: Plan, held: Held, first: int, count: int) -> int:
        """Sends members that nobody has begun to somebody else."""
        if count:
            try:
                self._engine.executor.share(run, plan, Members(held.node, first, count, held.added))
            except UnavailableError as error:
                logger.warning("run %s: members could not be sent again; they will be: %s", run.id, error)
        return count

    def overdue(self, run: RunRef, plan: Plan, node: str, report: NodeReport) -> Applied:
        """It runs past its time limit, and whoever should have ended it did not."""
        place = Place.of(plan, node)
        reason = f"it ran past its time_limit of {place.spec.options.time_limit:g} s on worker {report.worker}"
        event = NodeFailed(node, report.attempt, f"TimeLimitError: {reason}", True, report.retries, self._random())
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
