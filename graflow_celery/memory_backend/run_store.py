"""One run's state in this process. The reference for the run store on Redis."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graflow_celery.core.commands import Command, DispatchNode, OpenGroup
from graflow_celery.core.state import Applied, NodeState, RunState, RunStatus, Transition
from graflow_celery.memory_backend.channel import MemoryChannel
from graflow_celery.ports import Attempt, Begun, Clock, EventRecord, NodeOutcome, Outcome, RunRef


class MemoryRunStore:
    """See :class:`graflow_celery.ports.RunStore`. Holds one run.

    Args:
        channel: where names that are no results are looked up.
        clock: stamps the events; seconds since the epoch.
        observer: called with each event, in the order of the commits, while they happen: it must be quick.
    """

    def __init__(
        self, channel: MemoryChannel, clock: Clock, observer: Callable[[EventRecord], None] | None = None
    ) -> None:
        self.state = RunState()
        self.ended = threading.Event()
        self.errors: dict[str, BaseException] = {}
        self.events: list[EventRecord] = []
        self._results: dict[str, Any] = {}
        self._channel = channel
        self._clock = clock
        self._observer = observer
        self._lock = threading.RLock()

    def begin(self, attempt: Attempt, names: Sequence[str]) -> Begun | None:
        with self._lock:
            losses = self.state.begin(attempt.node, attempt.number, attempt.redelivered)
            if losses is None:
                return None
            self._record(event="node_started", node=attempt.node, attempt=attempt.number, worker=attempt.worker)
            values = {name: self._results[name] for name in names if name in self._results}
            for name in names:
                if name not in values and self._channel.exists(name):
                    values[name] = self._channel.get(name)
            return Begun(values, losses)

    def commit(self, run: RunRef, transition: Transition, outcome: Outcome | None = None) -> Applied:
        with self._lock:
            applied = self.state.apply(transition)
            if applied.stale:
                return applied
            self._keep(transition, outcome)
            for emission in applied.emissions:
                self._record_emission(emission.command, emission.weight)
            if applied.status.is_terminal:
                self._record(event=f"run_{applied.status}", reason=self.state.reason)
                self.ended.set()
            return applied

    def outcomes(self, run: RunRef, nodes: Sequence[str]) -> list[NodeOutcome]:
        with self._lock:
            return [self._outcome(node) for node in nodes]

    def results(self, run: RunRef, nodes: Sequence[str]) -> dict[str, Any]:
        with self._lock:
            return {node: self._results[node] for node in nodes if node in self._results}

    def acknowledge(self, run: RunRef, commands: Iterable[Command]) -> None:
        with self._lock:
            for command in commands:
                self.state.outbox.pop(command, None)

    @property
    def status(self) -> RunStatus:
        return self.state.status

    def _outcome(self, node: str) -> NodeOutcome:
        record = self.state.nodes.get(node)
        if record is None:
            return NodeOutcome(None)
        error = self.errors.get(node)
        return NodeOutcome(record.state, record.attempt, f"{type(error).__name__}: {error}" if error else None)

    def _keep(self, transition: Transition, outcome: Outcome | None) -> None:
        fields: dict[str, Any] = {"event": transition.event}
        if transition.node is not None:
            fields |= {"node": transition.node, "attempt": transition.attempt}
        if transition.reason:
            fields["reason"] = transition.reason
        if outcome is not None and transition.node is not None:
            fields |= {"worker": outcome.worker, "duration": outcome.duration}
            if outcome.error is not None:
                self.errors[transition.node] = outcome.error
            elif transition.becomes is NodeState.SUCCEEDED:
                self._results[transition.node] = outcome.value
                self.errors.pop(transition.node, None)
        self._record(**fields)

    def _record_emission(self, command: Command, weight: int) -> None:
        if isinstance(command, DispatchNode):
            self._record(event="node_queued", node=command.node, attempt=command.attempt)
        elif isinstance(command, OpenGroup):
            self._record(event="group_opened", node=command.group, count=weight)

    def _record(self, **fields: Any) -> None:
        record: EventRecord = {**fields, "at": self._clock()}
        self.events.append(record)
        if self._observer is not None:
            self._observer(record)
