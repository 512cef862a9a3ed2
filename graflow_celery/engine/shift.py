"""The work of one message on a worker: attempts, one after the other, and what follows from them that can go on here.

Each round trip to the store commits what has ended and asks for leave for what comes next. In between, attempts that
take next to no time run one after the other, for at most FRESH seconds after the store was asked last: so a process
that dies takes no more finished work with it than that, and a run that was cancelled starts nothing once that time
is over. An attempt that takes longer keeps nobody waiting: `relieve` commits what was done before it, and hands on
what was to come after it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from graflow_celery.codec.exceptions import traceback_text
from graflow_celery.core.activation import node_of
from graflow_celery.core.commands import CloseBarrier, Command, DispatchNode, OpenGroup, graph_of
from graflow_celery.core.events import NodeSucceeded, StepsExceeded
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import Applied, Emission, Leave, NodeState, Transition
from graflow_celery.engine.known import Knowledge, Known
from graflow_celery.engine.node import AttemptRun, End, Host, NodeCode, finished, names
from graflow_celery.engine.portions import OVERHEAD
from graflow_celery.engine.runner import Engine
from graflow_celery.engine.terms import Entry, Terms
from graflow_celery.errors import GraflowError, UnavailableError
from graflow_celery.ports import (
    NOTHING,
    Answer,
    Asked,
    Attempt,
    Begun,
    Change,
    Clock,
    Members,
    Outcome,
    RunRef,
    SteppingStore,
)

#: Seconds after the store was asked for which the leave that it gave, or may be taken to give, holds.
FRESH = 0.05
#: Seconds that code may take which runs before what leads to it was committed.
QUICK = 0.005
#: Seconds after which what is left goes back to the queue: others may be idle, or come first, or the worker shuts down.
TURN = 0.5
#: Seconds of one attempt after which those that wait for it are relieved.
LONG = 0.25
#: Steps that are taken at a time.
SLICE = 64

_PENDING = Applied()


@dataclass(slots=True, eq=False)
class _Job:
    """An attempt to run here.

    ``reached``: it follows from one that ran here. ``assumed``: nobody gave leave yet. ``answers``: the command that
    its beginning carries out. ``then``: what follows from it.
    """

    attempt: Attempt
    known: Known
    host: Host
    code: NodeCode | None = None
    begun: Begun | None = None
    reached: bool = False
    assumed: bool = False
    answers: Command | None = None
    then: _Job | None = None


@dataclass(slots=True)
class _Pending:
    """A step that the store is to take; of a change, the end that it commits."""

    step: Asked | Change
    job: _Job
    end: End | None = None


@dataclass(eq=False)
class Shift:
    """See the module. One thread works; another one may call `relieve` meanwhile.

    ``worker``, ``holder``: as in :class:`Attempt`. ``lock``: that of a thread, which it may take several times.
    """

    engine: Engine
    store: SteppingStore
    run: RunRef
    plan: Plan
    worker: str
    holder: str
    terms: Terms
    clock: Clock
    lock: AbstractContextManager[Any]
    knowledge: Knowledge
    entries: list[Entry] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._asked_at = self._since = self.clock()
        #: When the first attempt began: a process that is new takes its time to load code.
        self._began: float | None = None
        self._waiting: deque[_Job] = deque()
        self._granted: deque[_Job] = deque()
        self._pending: list[_Pending] = []
        self._rest: Members | None = None
        self._current: _Job | None = None
        self._taken: set[Command] = set()
        self._values: dict[str, Change] = {}
        self._left: int | None = None

    # ------------------------------------------------------------------------------------ work

    def run_node(self, node: str, number: int) -> None:
        """Runs an attempt, and what can go on here."""
        self._waiting.append(self._job(self.plan, node, number))
        self._work()

    def run_members(self, members: Members) -> None:
        """Runs the first attempts of members of a group, and what can go on here."""
        self._rest = members
        self._work()

    def _work(self) -> None:
        try:
            while True:
                job = self._next()
                if job is not None:
                    self._run(job)
                elif not self._exchange():
                    return
        except UnavailableError:  # it was waited for already
            raise
        except BaseException:  # whatever ends this process or this message: what was done is kept
            self._current = None
            self._commit()
            raise

    def _next(self) -> _Job | None:
        """What may begin now; None if the store has to be asked first."""
        with self.lock:
            if not self._granted or len(self._pending) >= SLICE or self.clock() - self._asked_at > FRESH:
                return None
            self._current, self._since = self._granted.popleft(), self.clock()
            self._began = self._began or self._since
            return self._current

    def _run(self, job: _Job) -> None:
        with self.terms.begins(job.attempt):
            if job.code is None or job.begun is None:
                attempt = AttemptRun(self.engine, job.attempt, job.host, partial(self._at_once, job))
                applied = finished(attempt.steps(), job.host.run_coroutine)
            else:
                attempt = AttemptRun(self.engine, job.attempt, job.host, partial(self._collect, job), job.known.place)
                applied = finished(attempt.run(job.code, job.begun), job.host.run_coroutine)
        with self.lock:
            seconds, self._current = self.clock() - self._since, None
            if applied.stale:
                self._note(job, None, Outcome(duration=seconds), applied)

    def _at_once(self, job: _Job, end: End) -> Applied:
        """Commits an attempt's end, with all that follows. Raises SerializationError: it cannot be stored."""
        transition = self.engine.scheduler.decide(end.plan, end.event)
        applied = self.engine.deliver(self.run, end.plan, end.event, end.outcome, end.committed)
        if not applied.stale:
            with self.lock:
                self._note(job, transition, end.outcome, applied)
        return applied

    def _collect(self, job: _Job, end: End) -> Applied:
        """Keeps an attempt's end until the store is asked next. Raises SerializationError: it cannot be stored."""
        scheduler, event, forms = self.engine.scheduler, end.event, None
        if event == NodeSucceeded(job.attempt.node, job.attempt.number):
            transition, forms = job.known.succeeded(scheduler, end.plan, event), job.known.forms
        else:
            transition = scheduler.decide(end.plan, event)
        # If it turns out that there was no leave, this is to count for nothing.
        change = self.store.change(self.run, transition, end.outcome, self.holder if job.assumed else None, forms)
        self.terms.took(job.known.kind, end.outcome.duration)
        with self.lock:
            self._pending.append(_Pending(change, job, end))
            self._go_on(job, transition, change, end)
        return _PENDING

    # ------------------------------------------------------------------------------------ what follows

    def _go_on(self, job: _Job, transition: Transition, change: Change, end: End) -> None:
        """Takes on what surely follows from an attempt alone, if it may run here."""
        if transition.becomes is not NodeState.SUCCEEDED or self._is_over:
            return
        found = [*transition.emissions, *(emission for item in transition.arrivals for emission in item.then)]
        command = found[0].command if len(found) == 1 and not found[0].delay else None
        if not isinstance(command, DispatchNode) or not self._goes_on(end.plan, command):
            return
        follower = self._follower(end.plan, command)
        job.then = follower
        self._taken.add(command)
        if end.outcome.value is not NOTHING:
            self._values[node_of(job.attempt.node)] = change
        sure = all(arrival.needs == 1 for arrival in transition.arrivals)
        if sure and self._may_assume(job, follower):
            self._assume(follower)
        else:
            self._waiting.appendleft(follower)

    def _goes_on(self, plan: Plan, command: DispatchNode) -> bool:
        return command.attempt == plan.first and self.terms.goes_on(plan, command.node)

    def _may_assume(self, job: _Job, follower: _Job) -> bool:
        """Whether a follower may run before what leads to it is committed. It must not be able to notice."""
        expected = self.terms.expected(follower.known.kind)
        if expected is None or expected > QUICK or not self.terms.commits_late():
            return False
        if follower.known.kind not in self.knowledge.loaded or not self._load(follower):
            return False
        codes = [found for found in (job.code, follower.code) if found is not None]
        if any(code.sees_run for code in codes):
            return False
        wanted = names(codes[-1], follower.attempt.plan)
        known = len(wanted) == len(codes[-1].wanted()) and all(name in self._values for name in wanted)
        first = job.attempt.number == follower.attempt.number == self.plan.first
        return known and first and not follower.known.place.is_again and self._left != 0

    def _assume(self, follower: _Job) -> None:
        follower.assumed = True
        code = follower.code
        wanted = () if code is None else code.wanted()
        follower.begun = Begun({name: self.store.value(self._values[name]) for name in wanted}, Leave())
        self._left = None if self._left is None else self._left - 1
        self._pending.append(_Pending(self._ask(follower), follower))
        self._granted.appendleft(follower)

    # ------------------------------------------------------------------------------------ the store

    def _exchange(self) -> bool:
        """Commits what has ended, and asks for leave for what comes next. False: there is nothing left to do."""
        with self.lock:
            if self._is_over:
                self._pass_on()
            self._granted = deque(self._pending_leave(self._granted))
            for job in self._slice():
                self._pending.append(_Pending(self._ask(job), job))
            if not self._pending:
                self._asked_at = self.clock()  # those that are left ask by themselves
                return bool(self._granted or self._waiting or self._rest)
            asked = [item.job.attempt for item in self._pending if isinstance(item.step, Asked)]
            self.terms.holds([*(job.attempt for job in self._granted if not job.assumed), *asked], self._rest)
            self._take()
            self.terms.holds([job.attempt for job in self._granted], self._rest)
            return True

    def _pending_leave(self, granted: Iterable[_Job]) -> Iterable[_Job]:
        """Has the leave confirmed that was given a while ago; what had none yet is asked for anyway."""
        for job in granted:
            if job.assumed or job.code is None:
                yield job
            else:
                asked = Asked(job.attempt, job.known.place.scopes, (), renews=True, forms=job.known.forms)
                self._pending.append(_Pending(asked, job))

    def _slice(self) -> list[_Job]:
        """The next attempts, as many as will take about FRESH seconds together."""
        chosen: list[_Job] = []
        room = FRESH - sum(self._cost(job) for job in self._granted)
        while len(chosen) + len(self._pending) < SLICE and room > 0:
            rest = self._rest
            job = self._waiting.popleft() if self._waiting else self._next_member()
            if job is None:
                break
            cost = self._cost(job)
            if (chosen or self._granted) and cost > room:
                if rest is self._rest:
                    self._waiting.appendleft(job)
                else:  # it stays with the rest, of which others know that it is here
                    self._rest = rest
                break
            room -= cost
            if self._load(job):
                chosen.append(job)
            else:  # what is wrong with its code is for the attempt itself to say, when all before it is committed
                self._granted.append(job)
                break
        return chosen

    def _cost(self, job: _Job) -> float:
        expected = self.terms.expected(job.known.kind)
        return FRESH if expected is None else expected + OVERHEAD

    def _next_member(self) -> _Job | None:
        if self._rest is None:
            return None
        rest = self._rest
        node = Place.of(self.plan, rest.group).start(rest.first)
        self._rest = replace(rest, first=rest.first + 1, count=rest.count - 1) if rest.count > 1 else None
        return self._job(self.plan, node, self.plan.first)

    def _take(self) -> None:
        """Has the store take the steps that are pending, and sees to what follows from them."""
        taken, self._pending, self._asked_at = self._pending, [], self.clock()
        try:
            answers = self.store.advance(self.run, [item.step for item in taken])
        except BaseException:
            self._pending = [*taken, *self._pending]
            raise
        follow: list[tuple[Plan, Emission]] = []
        for item, answer in zip(taken, answers, strict=True):
            if isinstance(item.step, Asked):
                self._answered(item, answer)
            elif isinstance(answer, Applied) and item.end is not None:
                follow += self._committed(item, item.end, item.step.transition, answer)
        self._values.clear()
        self._follow(follow)

    def _answered(self, item: _Pending, answer: Answer) -> None:
        job = item.job
        if isinstance(item.step, Asked) and item.step.returns:
            return
        if isinstance(answer, GraflowError):
            AttemptRun(self.engine, job.attempt, job.host, partial(self._at_once, job)).failed(answer)
        elif isinstance(answer, Begun) and answer.leave.max_steps is not None:
            self.engine.end(self.run, StepsExceeded(answer.leave.max_steps))
        elif isinstance(answer, Begun) and job.assumed:
            job.assumed = False
        elif isinstance(answer, Begun):
            job.begun = job.begun or answer
            self._granted.append(job)
            if not (isinstance(item.step, Asked) and item.step.renews):
                self._left = answer.leave.left
        else:
            self._drop(job)

    def _drop(self, job: _Job) -> None:
        """It is not to run."""
        for jobs in (self._waiting, self._granted):
            if job in jobs:
                jobs.remove(job)

    def _committed(
        self, item: _Pending, end: End, transition: Transition, applied: Applied
    ) -> list[tuple[Plan, Emission]]:
        job, outcome = item.job, end.outcome
        end.committed(applied)
        self.engine.committed(self.run, end.plan, transition, applied)
        self.engine.told(self.run, applied)
        self._note(job, transition, outcome, applied)
        if applied.stale:
            if job.then is not None:  # nothing leads to it
                self._drop(job.then)
            return []
        return [(end.plan, emission) for emission in applied.emissions if emission.command not in self._taken]

    def _note(self, job: _Job, transition: Transition | None, outcome: Outcome, applied: Applied) -> None:
        raised = None if applied.stale else outcome.error
        entry = Entry(
            job.attempt.node,
            job.attempt.number,
            _state(transition, applied),
            "" if transition is None else transition.reason,
            outcome.duration,
            "" if raised is None else traceback_text(raised),
        )
        self.entries.append(entry)

    def _follow(self, found: list[tuple[Plan, Emission]]) -> None:
        """Carries out what commits queued: here, where that may be, or by whoever does."""
        while found:
            closing = [pair for pair in found if self._closes(*pair)]
            others = [pair for pair in found if not self._closes(*pair)]
            if len(others) == 1 and self._takes(*others[0]):
                others = []
            by_plan: dict[str, tuple[Plan, list[Emission]]] = {}
            for plan, emission in others:
                by_plan.setdefault(plan.graph, (plan, []))[1].append(emission)
            for plan, emissions in by_plan.values():
                self.engine.follow(self.run, plan, Applied(tuple(emissions)))
            found = []
            for plan, emission in closing:
                command = emission.command
                if isinstance(command, CloseBarrier):
                    judged = self.terms.judge(plan, command.group)
                    found += [(plan, following) for following in judged.emissions]

    def _closes(self, plan: Plan, emission: Emission) -> bool:
        command = emission.command
        return (
            isinstance(command, CloseBarrier)
            and not emission.delay
            and graph_of(command) == plan.graph
            and self.terms.closes(plan, command.group)
        )

    def _takes(self, plan: Plan, emission: Emission) -> bool:
        """Takes on a node or group that is ready, if it may run here."""
        command = emission.command
        if self._is_over or emission.delay or graph_of(command) != plan.graph:
            return False
        if isinstance(command, DispatchNode) and self._goes_on(plan, command):
            self._waiting.append(self._follower(plan, command))
        elif isinstance(command, OpenGroup) and not self._rest and self.terms.opens(plan, command.group):
            self._open(plan, command)
        else:
            return False
        self._taken.add(command)
        return True

    def _open(self, plan: Plan, command: OpenGroup) -> None:
        place = Place.of(plan, command.group)
        first = self._job(plan, place.start(0), plan.first)
        first.answers = command
        self._waiting.append(first)
        self.plan = plan
        if len(place.spec.entries) > 1:
            self._rest = Members(command.group, 1, len(place.spec.entries) - 1, command.graph)

    # ------------------------------------------------------------------------------------ giving way

    @property
    def _is_over(self) -> bool:
        """Whether its turn is: what is left is for whoever comes next."""
        return self._began is not None and self.clock() - self._began > TURN

    @property
    def busy(self) -> float:
        """Seconds for which the attempt that runs now has been running; 0 if none does."""
        return 0.0 if self._current is None else self.clock() - self._since

    def relieve(self) -> None:
        """Commits what was done before the attempt that runs now, and lets others do the rest. From any thread."""
        with self.lock:
            if self._current is None or not (self._pending or self._granted or self._waiting or self._rest):
                return
            granted, self._granted = self._granted, deque()
            back = [job for job in granted if not job.assumed]
            self._pending += [_Pending(self._returned(job), job) for job in back]
            self._commit()
            self._rest = self._joined(back)
            self._pass_on()
            self.terms.holds([self._current.attempt], None)

    def _returned(self, job: _Job) -> Asked:
        return Asked(job.attempt, job.known.place.scopes, (), returns=True, forms=job.known.forms)

    def _joined(self, back: list[_Job]) -> Members | None:
        """The rest, with the members before it that had leave and are not begun; others are sent by themselves."""
        rest, plan = self._rest, self.plan
        for job in reversed(back):
            place, first = job.known.place, rest.first if rest is not None else -1
            starts = job.attempt.number == plan.first and place.number >= 0
            if starts and rest is None:
                rest = Members(place.around.key, place.number, 1, place.graph)
            elif starts and rest is not None and (place.around.key, place.number + 1) == (rest.group, first):
                rest = replace(rest, first=first - 1, count=rest.count + 1)
            else:
                self._waiting.appendleft(job)
        return rest

    def _pass_on(self) -> None:
        """Sends what nobody was asked about yet."""
        if self._rest is not None:
            self.terms.share(self.plan, self._rest)
            self._rest = None
        if not self._waiting:
            return
        self._commit()  # what leads to those that follow has to count first
        waiting, self._waiting = self._waiting, deque()
        for job in waiting:
            attempt, graph = job.attempt, job.known.place.graph
            self.engine.follow(
                self.run, attempt.plan, Applied((Emission(DispatchNode(attempt.node, attempt.number, graph)),))
            )

    def _commit(self) -> None:
        """Has the store take what is pending, and nothing more."""
        with self.lock:
            if self._pending:
                self._take()

    # ------------------------------------------------------------------------------------ jobs

    def _job(self, plan: Plan, node: str, number: int) -> _Job:
        known = self.knowledge.find(self.run.version, plan, node, number)
        if known is None:
            known = Known(Place.of(plan, node), self.terms.kind(plan, node))
            self.knowledge.keep(self.run.version, plan, node, number, known)
        attempt = Attempt(self.run, plan, node, number, self.worker, self.holder)
        return _Job(attempt, known, self.terms.host(plan, node))

    def _follower(self, plan: Plan, command: DispatchNode) -> _Job:
        job = self._job(plan, command.node, command.attempt)
        job.reached, job.answers = True, command
        return job

    def _load(self, job: _Job) -> bool:
        """Whether the code of a job could be loaded. If that kills the process, nothing that was done is lost."""
        if job.known.kind not in self.knowledge.loaded:
            self._commit()
        try:
            job.code = job.code or job.host.load()
        except GraflowError:
            return False
        self.knowledge.loaded.add(job.known.kind)
        return True

    def _ask(self, job: _Job) -> Asked:
        code = job.code
        wanted = () if code is None else tuple(names(code, job.attempt.plan))
        scopes, forms = job.known.place.scopes, job.known.forms
        return Asked(job.attempt, scopes, wanted, reached=job.reached, answers=job.answers, forms=forms)


def _state(transition: Transition | None, applied: Applied) -> str:
    """A word for what came of an attempt."""
    if applied.stale:
        return "stale"
    if transition is None or transition.becomes is None:
        return "succeeded" if applied.ended_node else "waiting"
    if transition.becomes is NodeState.QUEUED:
        return transition.event.removeprefix("node_")
    return str(transition.becomes)
