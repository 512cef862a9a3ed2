"""Makes an explanation of a run from what is known of it. It asks nobody and reads no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from graflow_celery.core.commands import (
    CloseBarrier,
    Command,
    DispatchNode,
    ExpireFeedback,
    ExpireGroup,
    ExpireRun,
)
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.core.policy import (
    AtLeastNGroupPolicy,
    BestEffortGroupPolicy,
    CriticalGroupPolicy,
    StrictGroupPolicy,
)
from graflow_celery.core.state import NodeState, RunStatus
from graflow_celery.engine.explanation import (
    Deadline,
    Explanation,
    Failure,
    Obstacle,
    OpenGroup,
    OpenNode,
    Request,
)
from graflow_celery.engine.feedback import FeedbackRequest
from graflow_celery.engine.happenings import befell
from graflow_celery.engine.holding import Holding
from graflow_celery.engine.oversight import Lease
from graflow_celery.errors import BlobMissingError, BlobRejectedError
from graflow_celery.ports import EventRecord, NodeReport

#: States of tasks that nobody works on.
IDLE = frozenset({"queued", "delayed"})
#: Seconds for which what is due may lie until nobody seems to see to it: a monitor looks at each run every ten.
OVERDUE = 15.0


class Worker(Lease, Protocol):
    """A worker's lease, with the pid of its main process."""

    @property
    def pid(self) -> int: ...


@dataclass(frozen=True)
class Facts:
    """All that is known of a run.

    Attributes:
        plan_for: the plan of a graph by its hash; of the workflow as written for an empty one.
        details: the run's own fields. ``records``: of every activation that has one.
        items: how many items mapped tasks have, by key, as far as they are counted.
        outbox: the commands that are not known to be carried out, and when the monitor sees to each.
        watch: when the monitor looks at activations at the latest.
        leases: of workers that are not known to be dead, as records name them.
        depths: how many messages wait in a queue, or None; asked for the queues that matter alone.
        errors: the texts of the errors of some activations.
        timeout: seconds without a beat after which a worker is missing. ``queue``: of tasks that name none.
    """

    run: str
    now: float
    plan_for: Callable[[str], Plan]
    details: Mapping[str, str]
    records: Mapping[str, NodeReport]
    items: Mapping[str, int]
    outbox: Sequence[tuple[Command, float]]
    watch: Mapping[str, float]
    requests: Sequence[FeedbackRequest]
    leases: Mapping[str, Worker]
    depths: Callable[[str], int | None]
    errors: Callable[[Sequence[str]], Mapping[str, str]]
    events: Sequence[EventRecord]
    monitor: str | None
    timeout: float
    queue: str


@dataclass
class _Candidate:
    """A task that has not ended. ``report`` is None for the first of a group before it begins."""

    place: Place
    report: NodeReport | None
    since: float


@dataclass
class _Found:
    tasks: list[_Candidate] = field(default_factory=list)
    groups: list[tuple[Place, NodeReport]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def explained(facts: Facts, most: int | None = 20) -> Explanation:
    """The explanation of a run, with ``most`` nodes, groups, failures and happenings; None for all."""
    details = facts.details
    status = RunStatus(details["status"])
    gone = ""
    try:
        found = _Found() if status.is_terminal else _open(facts)
        _count_ended(facts, found.counts)
    except (BlobMissingError, BlobRejectedError) as error:
        gone = str(error)
        found = _Found(counts=_states_alone(facts))
    tasks = sorted(found.tasks, key=lambda item: (_state(facts, item) in IDLE, item.since, item.place.key))
    groups = sorted(found.groups, key=lambda item: (item[1].started, item[0].key))
    shown, shown_groups = tasks[:most], groups[:most]
    asked = [request for request in facts.requests if request.is_open]
    builder = _Builder(facts)
    finished = int(details["finished"]) / 1000 if "finished" in details else None
    return Explanation(
        run=facts.run,
        workflow=details.get("workflow", ""),
        status=str(status),
        reason=details.get("reason", ""),
        at=facts.now,
        started=int(details["started"]) / 1000,
        finished=finished,
        counts=dict(found.counts),
        nodes=tuple(builder.task(item) for item in shown),
        more_nodes=len(tasks) - len(shown),
        groups=tuple(builder.group(*item) for item in shown_groups),
        more_groups=len(groups) - len(shown_groups),
        requests=() if status.is_terminal else tuple(_request(item) for item in asked[:most]),
        timeout=next((due for command, due in facts.outbox if isinstance(command, ExpireRun)), None),
        monitor=facts.monitor,
        obstacles=tuple(_graph_gone(gone, status)) if gone or status.is_terminal else tuple(builder.obstacles(tasks)),
        happenings=tuple(befell(facts.events, most)),
        failures=tuple(_failures(facts, most)),
        advice="" if gone else _advice(facts.run, status),
    )


def _open(facts: Facts) -> _Found:
    """What can still come to an end: no group around it has."""
    found = _Found()
    for key, report in facts.records.items():
        if report.state.is_final:
            continue
        place = Place.of(facts.plan_for(report.graph), key)
        if any(_is_final(facts.records.get(scope)) for scope in place.scopes):
            continue
        if place.spec.is_group:
            found.groups.append((place, report))
            found.tasks += _unbegun(facts, place, report)
        else:
            found.tasks.append(_Candidate(place, report, report.started))
    found.counts.update(_state(facts, item) for item in found.tasks)
    return found


def _unbegun(facts: Facts, place: Place, report: NodeReport) -> Iterator[_Candidate]:
    """The first members of an open group that have no record before they begin."""
    for key in _first_members(facts, place):
        if key not in facts.records:
            yield _Candidate(Place.of(place.plan, key), None, report.started)


def _first_members(facts: Facts, place: Place) -> Iterator[str]:
    if place.spec.map is None:
        yield from (place.inside(entry).key for entry in place.spec.entries if not place.plan[entry].is_group)
        return
    count, most = facts.items.get(place.key, 0), place.spec.map.max_parallel
    prefix, suffix = place.members
    yield from (f"{prefix}{index}{suffix}" for index in range(count if most is None else min(count, most)))


def _count_ended(facts: Facts, counts: Counter[str]) -> None:
    for key, report in facts.records.items():
        if report.state.is_final and not Place.of(facts.plan_for(report.graph), key).spec.is_group:
            counts[str(report.state)] += 1


def _states_alone(facts: Facts) -> Counter[str]:
    """How many tasks are in which state, as far as records say so without the graph: groups have no attempt."""
    return Counter(str(report.state) for report in facts.records.values() if report.attempt)


def _graph_gone(reason: str, status: RunStatus) -> Iterator[Obstacle]:
    if reason:
        so = "cannot be retried" if status.is_terminal else "cannot go on, nor be told which tasks it waits for"
        yield Obstacle(
            f"its graph is not in the store any more, or not readable, so it {so}: {reason}",
            "Submit the workflow again, as a new run.",
        )


def _state(facts: Facts, item: _Candidate) -> str:
    report = item.report
    if report is None:
        return "queued"
    if report.state is NodeState.QUEUED and report.started > facts.now:
        return "delayed"
    if report.state is NodeState.WAITING and any(
        request.is_open and request.task_id == item.place.spec.id for request in facts.requests
    ):
        return "asking"
    return str(report.state)


class _Builder:
    """Tells of single nodes."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._depths: dict[str, int | None] = {}
        self._unsent = {
            (command.node, command.attempt): due for command, due in facts.outbox if isinstance(command, DispatchNode)
        }
        self._held = Holding(
            {
                lease.name: [item for item in lease.held if item.run.id == facts.run and not item.running]
                for lease in facts.leases.values()
            }
        )

    def task(self, item: _Candidate) -> OpenNode:
        facts, report, spec = self._facts, item.report, item.place.spec
        key, state = item.place.key, _state(facts, item)
        attempt = 1 if report is None else report.attempt
        queue = spec.options.queue or facts.queue
        lease = facts.leases.get(report.holder) if report is not None and report.holder else None
        waits = state in ("queued", "delayed")
        request = next((ask.feedback_id for ask in facts.requests if ask.is_open and ask.task_id == spec.id), "")
        return OpenNode(
            node=key,
            state=state,
            since=item.since,
            attempt=attempt,
            losses=0 if report is None else report.losses,
            retries=0 if report is None else report.retries,
            worker=report.worker if report is not None and state == "running" else "",
            pid=None if lease is None else lease.pid,
            last_beat=None if lease is None else lease.age,
            queue=queue,
            consumers=len(self._consumers(queue)),
            messages=self._depth(queue) if waits else None,
            held_by=self._held.worker(facts.run, item.place, attempt) or "",
            request=request if state == "asking" else "",
            deadlines=self._deadlines(item, state, attempt, lease),
        )

    def group(self, place: Place, report: NodeReport) -> OpenGroup:
        facts = self._facts
        members = self._members(place)
        records = [facts.records.get(key) for key in members.values()] if members is not None else []
        states = Counter(str(record.state) for record in records if _is_final(record) and record is not None)
        deadlines = [
            Deadline(
                "its timeout closes it" if isinstance(command, ExpireGroup) else "the monitor fires its barrier", due
            )
            for command, due in facts.outbox
            if isinstance(command, ExpireGroup | CloseBarrier) and command.group == place.key
        ]
        return OpenGroup(
            node=place.key,
            since=report.started,
            members=None if members is None else len(members),
            ended=sum(states.values()),
            succeeded=states["succeeded"],
            failed=states["failed"],
            needs=self._needs(place, members or {}, states),
            deadlines=tuple(sorted(deadlines, key=lambda item: item.at)),
        )

    def obstacles(self, tasks: Sequence[_Candidate]) -> Iterator[Obstacle]:
        facts = self._facts
        queues = Counter(
            item.place.spec.options.queue or facts.queue for item in tasks if _state(facts, item) == "queued"
        )
        for queue, count in sorted(queues.items()):
            if not self._consumers(queue):
                waiting = f"{count:,} {'task waits' if count == 1 else 'tasks wait'} there"
                yield Obstacle(
                    f"no live worker consumes the queue '{queue}': {waiting}",
                    f"Start one: graflow-celery worker -Q {queue}",
                )
        overdue = [due for _, due in facts.outbox if due < facts.now - OVERDUE]
        if overdue:
            late = facts.now - min(overdue)
            yield Obstacle(
                f"{len(overdue):,} commands are overdue, the oldest by {late:.0f} s, and no monitor sees to them",
                "Start a worker or: graflow-celery monitor",
            )
        elif facts.monitor is None:
            yield Obstacle(
                "no monitor leads: what gets lost is not replaced", "Start a worker or: graflow-celery monitor"
            )

    def _deadlines(self, item: _Candidate, state: str, attempt: int, lease: Worker | None) -> tuple[Deadline, ...]:
        facts, options, key = self._facts, item.place.spec.options, item.place.key
        found = [
            Deadline("its request counts as late", due)
            for command, due in facts.outbox
            if state == "asking" and isinstance(command, ExpireFeedback) and command.node == key
        ]
        if state == "running":
            if options.time_limit is not None:
                found.append(Deadline("it is killed at its time_limit", item.since + options.time_limit))
            if lease is not None:
                found.append(Deadline("its worker's lease runs out", facts.now - lease.age + facts.timeout))
        if state == "delayed":
            found.append(Deadline("it is tried again", item.since))
        if (key, attempt) in self._unsent:
            found.append(Deadline("the monitor sends its message", self._unsent[key, attempt]))
        if key in facts.watch:
            found.append(Deadline("the monitor looks at it", facts.watch[key]))
        return tuple(sorted(found, key=lambda deadline: deadline.at))

    def _members(self, place: Place) -> dict[str, str] | None:
        """The key under which each member ends, by its id."""
        if place.spec.map is None:
            return {node: place.inside(node).key for node in place.spec.exits}
        count = self._facts.items.get(place.key)
        if count is None:
            return None
        prefix, suffix = place.members
        return {f"{place.spec.id}[{index}]": f"{prefix}{index}{suffix}" for index in range(count)}

    def _needs(self, place: Place, members: Mapping[str, str], states: Mapping[str, int]) -> str:
        failed = states["failed"] + states["skipped"]
        match place.spec.policy:
            case StrictGroupPolicy() if failed:
                return f"strict: {failed:,} failed, so it fails when all have ended"
            case StrictGroupPolicy():
                return "strict: all have to succeed"
            case BestEffortGroupPolicy():
                return "best_effort: all have to end"
            case AtLeastNGroupPolicy(needed):
                return f"at_least_n: {needed:,} have to succeed, {max(0, needed - states['succeeded']):,} more"
            case CriticalGroupPolicy(critical):
                records = self._facts.records
                left = [
                    name
                    for name in critical
                    if (record := records.get(members.get(name, ""))) is None or record.state is not NodeState.SUCCEEDED
                ]
                return f"critical: {', '.join(left) or 'none'} have to succeed"
            case policy:
                return f"{type(policy).__name__} is asked when all have ended"

    def _consumers(self, queue: str) -> list[Worker]:
        timeout = self._facts.timeout
        return [lease for lease in self._facts.leases.values() if queue in lease.queues and lease.age < timeout]

    def _depth(self, queue: str) -> int | None:
        if queue not in self._depths:
            self._depths[queue] = self._facts.depths(queue)
        return self._depths[queue]


def _is_final(report: NodeReport | None) -> bool:
    return report is not None and report.state.is_final


def _request(request: FeedbackRequest) -> Request:
    command = f"graflow-celery feedback answer {request.feedback_id} ..."
    return Request(request.feedback_id, request.task_id, request.prompt, command)


def _failures(facts: Facts, most: int | None) -> Iterator[Failure]:
    failed = [
        (key, report) for key, report in facts.records.items() if report.state is NodeState.FAILED and report.attempt
    ]
    failed = sorted(failed, key=lambda item: item[1].started)[:most]
    errors = facts.errors([key for key, _ in failed])
    for key, report in failed:
        yield Failure(key, errors.get(key, "failed"), report.worker, report.attempt, report.losses)


def _advice(run: str, status: RunStatus) -> str:
    if status in (RunStatus.FAILED, RunStatus.CANCELLED):
        return f"What failed or did not run can run again, finished work is kept: graflow-celery retry {run}"
    return ""
