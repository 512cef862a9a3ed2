"""The monitor: sees to what is late. Safe to run anywhere, and in many places at once."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence

from graflow_celery.core.commands import CloseBarrier, Command, DispatchNode, OpenGroup, OpenMembers
from graflow_celery.core.events import RunAborted
from graflow_celery.engine.inspection import Inspection
from graflow_celery.engine.lost import Losses
from graflow_celery.engine.oversight import Ledger, Workforce
from graflow_celery.engine.runner import Engine
from graflow_celery.errors import BlobMissingError, BlobRejectedError
from graflow_celery.ports import Death, Held, Late, RunRef

#: Seconds between two ticks at the least.
SHORTEST = 0.02

logger = logging.getLogger(__name__)


class Monitor:
    """Sees to workers that died, and to what is late in the runs: commands that were not carried out, timers, attempts
    that nobody has. What it does is fenced: nothing breaks if another one does it too.

    Args:
        name, lease: ticks do nothing while another monitor holds the lease of ``lease`` seconds.
    """

    def __init__(
        self,
        engine: Engine,
        ledger: Ledger,
        workforce: Workforce,
        losses: Losses,
        inspection: Inspection,
        name: str,
        lease: float,
    ) -> None:
        self._engine = engine
        self._ledger = ledger
        self._workforce = workforce
        self._losses = losses
        self._inspection = inspection
        self._name = name
        self._lease = lease
        self.leads = False

    def tick(self) -> int:
        """One look at everything that is late; returns how much was done about it."""
        self.leads = self._workforce.lead(self._name, self._lease)
        if not self.leads:
            return 0
        deaths = self._workforce.deaths()
        done = sum(self._see_to_death(death) for death in deaths)
        # A worker that died may have had what no beat of it told of, or have been about to send something.
        late = list(self._ledger.late(sweep=bool(deaths)))
        self._inspection.begin(late, {death.worker: _cause(death) for death in deaths})
        for item in late:
            try:
                done += self._carry_out(item) + self._inspection.inspect(item)
            except (BlobMissingError, BlobRejectedError) as error:
                self._give_up(item.run, error)
        # Last: should this process die over it, the next leader sees to all of it once more.
        for death in deaths:
            self._workforce.bury(death)
        return done

    def patience(self, most: float) -> float:
        """Seconds until another tick is worth while, ``most`` at the most."""
        times = (self._workforce.next_expiry, self._ledger.next_look) if self.leads else ()
        return min([most, *(max(SHORTEST, after) for after in times if after is not None)])

    def _see_to_death(self, death: Death) -> int:
        cause = _cause(death)
        logger.warning("%s; it held %d attempts", cause, sum(held.count for held in death.held))
        by_run: dict[RunRef, list[Held]] = {}
        for held in death.held:
            by_run.setdefault(held.run, []).append(held)
        done = 0
        for run, found in by_run.items():
            try:
                done += self._replace(run, found, death, cause)
            except (BlobMissingError, BlobRejectedError) as error:
                self._give_up(run, error)
        return done

    def _give_up(self, run: RunRef, error: BlobMissingError | BlobRejectedError) -> None:
        """Ends a run whose graph cannot be had, unless it may be put back."""
        if isinstance(error, BlobRejectedError) or not self._ledger.begged(run, error):
            self._engine.end(run, RunAborted(str(error)))

    def _replace(self, run: RunRef, found: Sequence[Held], death: Death, cause: str) -> int:
        return sum(self._losses.left(run, held, death.worker, cause) for held in found)

    def _carry_out(self, late: Late) -> int:
        if not late.commands:
            return 0
        run, plan = late.run, self._engine.graphs.plan_for(late.run, "")
        for reason, count in Counter(_why(late.commands)).items():
            logger.info("run %s: %d commands %s", run.id, count, reason)
            self._ledger.note(run, "carried_out", count=count, reason=reason, worker=self._name)
        others = [command for command in late.commands if not isinstance(command, CloseBarrier)]
        self._engine.carry_out(run, plan, others)
        for command in late.commands:
            if isinstance(command, CloseBarrier):  # here: a message could get lost again
                here = self._engine.graphs.plan_for(run, command.graph)
                self._engine.close_barrier(run, here, command.group)
        return len(late.commands)


def _cause(death: Death) -> str:
    who = f"worker {death.name} (pid {death.pid})" if death.pid else f"worker {death.name}"
    if death.reported:
        return f"{who} died (its process ended; its last beat was {death.silence:.1f} s ago)"
    return f"{who} died or hangs (its last beat was {death.silence:.1f} s ago)"


def _why(commands: Sequence[Command]) -> Iterator[str]:
    for command in commands:
        if isinstance(command, DispatchNode | OpenGroup | OpenMembers):
            yield "that were committed and not known to be sent, are sent again"
        elif isinstance(command, CloseBarrier):
            yield "to close barriers that nobody closed, are carried out"
