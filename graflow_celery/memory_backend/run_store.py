"""One run's state in this process. The reference for the run store on Redis."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from graflow_celery.core.activation import node_of
from graflow_celery.core.commands import Command, DispatchNode, OpenGroup
from graflow_celery.core.state import Applied, Emission, NodeState, RunState, RunStatus, Transition
from graflow_celery.memory_backend.channel import MemoryChannel
from graflow_celery.ports import (
    NOTHING,
    Attempt,
    Begun,
    Clock,
    EventRecord,
    FeedbackRecord,
    NodeOutcome,
    Outcome,
    RunRef,
    Snapshot,
)


class MemoryRunStore:
    """See :class:`graflow_celery.ports.RunStore`. Holds one run.

    Args:
        channel: where names that are no results are looked up.
        clock: stamps the events; seconds since the epoch.
        observer: called with each event, in the order of the commits, while they happen: it must be quick.
        state: what the run has come to already, if it is resumed.
    """

    def __init__(
        self,
        channel: MemoryChannel,
        clock: Clock,
        observer: Callable[[EventRecord], None] | None = None,
        state: RunState | None = None,
    ) -> None:
        self.state = state or RunState()
        self.ended = threading.Event()
        self._end_calls: list[Callable[[], None]] = []
        self.tell_feedback: Callable[[str, FeedbackRecord], None] = _nothing
        self.errors: dict[str, BaseException] = {}
        self.events: list[EventRecord] = []
        self._results: dict[str, Any] = {}
        self._inputs: dict[str, Any] = {}
        self._feedback: dict[str, FeedbackRecord] = {}
        self._since: dict[str, float] = {}
        self._channel = channel
        self._clock = clock
        self._observer = observer
        self._lock = threading.RLock()

    def begin(self, attempt: Attempt, scopes: Sequence[str], names: Sequence[str]) -> Begun | None:
        with self._lock:
            graph = attempt.plan.graph_of(node_of(attempt.node))
            leave = self.state.begin(attempt.node, attempt.number, attempt.worker, tuple(scopes), graph)
            if leave is None or leave.max_steps is not None:
                return None if leave is None else Begun(leave=leave)
            if self.state.steps == 1:
                self._record(event="run_started", worker=attempt.worker)
            node, now = attempt.node, self._clock()
            self._since[node] = now
            self._put({"event": "node_started", "node": node, "attempt": attempt.number, "worker": attempt.worker}, now)
            values = self.values(attempt.run, names) if names else {}
            return Begun(values, leave, self._inputs.get(node, NOTHING))

    def commit(self, run: RunRef, transition: Transition, outcome: Outcome | None = None) -> Applied:
        with self._lock:
            took = self._running_for(transition)
            applied = self.state.apply(transition)
            if applied.stale:
                return applied
            self._keep(transition, outcome, took)
            for emission in applied.emissions:
                self._record_emission(emission)
            if applied.status.is_terminal:
                self._record(event=f"run_{applied.status}", reason=self.state.reason)
            elif transition.pauses:
                self._record(event="run_waiting", node=transition.node)
            if transition.resumes:
                self.ended.clear()
        if applied.status.is_terminal:
            self.tell_end()
        if outcome is not None and outcome.feedback is not None:
            self.tell_feedback(transition.event, outcome.feedback)
        return applied

    def outcomes(self, run: RunRef, nodes: Sequence[str]) -> list[NodeOutcome]:
        with self._lock:
            return [self._outcome(node) for node in nodes]

    def results(self, run: RunRef, nodes: Sequence[str]) -> dict[str, Any]:
        with self._lock:
            return {node: self._results[node] for node in nodes if node in self._results}

    def values(self, run: RunRef, names: Sequence[str]) -> dict[str, Any]:
        with self._lock:
            found = self.results(run, names)
            for name in names:
                if name not in found and (value := self._channel.get(name, NOTHING)) is not NOTHING:
                    found[name] = value
            return found

    def error(self, run: RunRef, node: str) -> BaseException | None:
        return self.errors.get(node)

    def jumps(self, run: RunRef, group: str) -> tuple[str, ...]:
        return self.state.jumps.get(group, ())

    def put_inputs(self, run: RunRef, inputs: Mapping[str, Any]) -> None:
        with self._lock:
            self._inputs.update(inputs)

    def input(self, run: RunRef, node: str) -> Any:
        return self._inputs.get(node, NOTHING)

    def feedback(self, run: RunRef, ids: Sequence[str] | None = None) -> list[FeedbackRecord]:
        with self._lock:
            names = self._feedback if ids is None else [name for name in ids if name in self._feedback]
            return [self._feedback[name] for name in names]

    def acknowledge(self, run: RunRef, commands: Iterable[Command]) -> None:
        with self._lock:
            for command in commands:
                self.state.outbox.pop(command, None)

    def snapshot(self, run: RunRef) -> Snapshot:
        """The run as it is at this moment."""
        with self._lock:
            values, ttls = self._channel.values()
            return Snapshot(
                self.state.copy(),
                dict(self._results),
                dict(self.errors),
                values,
                dict(self._inputs),
                list(self._feedback.values()),
                ttls,
            )

    def restore(self, run: RunRef, snapshot: Snapshot) -> None:
        """Puts a run back to where it was; the channel's values are the channel's to restore."""
        with self._lock:
            self.state = snapshot.state.copy()
            self._results = dict(snapshot.results)
            self.errors = dict(snapshot.errors)
            self._inputs = dict(snapshot.inputs)
            self._feedback = {record.id: record for record in snapshot.feedback}

    def note(self, event: str, **fields: Any) -> None:
        """Adds to the run's events what is no transition."""
        with self._lock:
            self._record(event=event, **fields)

    def when_ended(self, call: Callable[[], None]) -> None:
        """Has ``call`` called, from any thread, when the end is told; at once if it was."""
        with self._lock:
            if not self.ended.is_set():
                self._end_calls.append(call)
                return
        call()

    def tell_end(self) -> None:
        """The run has ended; or it rests: all that is open waits for a person, who is late."""
        with self._lock:
            self.ended.set()
            calls, self._end_calls = self._end_calls, []
        for call in calls:
            call()

    @property
    def status(self) -> RunStatus:
        return self.state.status

    def _outcome(self, node: str) -> NodeOutcome:
        record = self.state.nodes.get(node)
        if record is None:
            return NodeOutcome(None)
        error = self.errors.get(node_of(node)) if record.state is not NodeState.SUCCEEDED else None
        return NodeOutcome(record.state, record.attempt, f"{type(error).__name__}: {error}" if error else None)

    def _running_for(self, transition: Transition) -> float:
        """Seconds since the node that changes its state began to run; 0 if it does not run."""
        node = transition.node
        record = self.state.nodes.get(node) if node is not None and transition.becomes is not None else None
        if node is None or record is None or record.state is not NodeState.RUNNING:
            return 0.0
        now = self._clock()
        return max(0.0, now - self._since.get(node, now))

    def _keep(self, transition: Transition, outcome: Outcome | None, took: float) -> None:
        fields: dict[str, Any] = {"event": transition.event}
        worker = outcome.worker if outcome is not None else ""
        if transition.node is not None:
            fields["node"], fields["attempt"] = transition.node, transition.attempt
            took = (outcome.duration if outcome is not None else 0.0) or took
            if worker:
                fields["worker"] = worker
            if took or worker:
                fields["duration"] = took
        if transition.items is not None:
            fields["count"] = transition.items
        if transition.reason:
            fields["reason"] = transition.reason
        if outcome is not None and transition.node is not None:
            if outcome.reported:
                fields["reported"] = "1"
            if outcome.feedback is not None:
                fields["request"] = outcome.feedback.id
            self._keep_outcome(transition.node, transition, outcome)
        self._put(fields, self._clock())

    def _keep_outcome(self, key: str, transition: Transition, outcome: Outcome) -> None:
        node = node_of(key)
        if outcome.error is not None and transition.becomes is not None:
            self.errors[node] = outcome.error
            self._results.pop(node, None)
        elif outcome.value is not NOTHING:
            self._results[node] = outcome.value
            if self.errors:
                self.errors.pop(node, None)
        if outcome.input is not NOTHING:
            self._inputs[key] = outcome.input
        if outcome.feedback is not None:
            self._feedback[outcome.feedback.id] = outcome.feedback

    def _record_emission(self, emission: Emission) -> None:
        command = emission.command
        if isinstance(command, DispatchNode):
            fields: dict[str, Any] = {"event": "node_queued", "node": command.node, "attempt": command.attempt}
        elif isinstance(command, OpenGroup):
            fields = {"event": "group_opened", "node": command.group, "attempt": 0}
            self._since[command.group] = self._clock()
        else:
            return
        if emission.members:
            fields["count"] = emission.members
        if emission.delay:
            fields["delay"] = emission.delay
        if command.graph:
            fields["graph"] = command.graph
        self._put(fields, self._clock())

    def _record(self, **fields: Any) -> None:
        self._put(fields, self._clock())

    def _put(self, record: dict[str, Any], at: float) -> None:
        record["at"] = at
        self.events.append(record)
        if self._observer is not None:
            self._observer(record)


def _nothing(event: str, record: FeedbackRecord) -> None:
    return None
