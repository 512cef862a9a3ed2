"""What a task, and a caller after the run, can ask of a run."""

from __future__ import annotations

from typing import Any

from graflow_celery.core.plan import Plan
from graflow_celery.ports import Channel, RunRef, RunStore


class ExecutionContext:
    """A run's parts in one place: its plan, results and channel. A thin container; it does no I/O by itself."""

    def __init__(self, run: RunRef, plan: Plan, store: RunStore, channel: Channel) -> None:
        self.run = run
        self.plan = plan
        self._store = store
        self._channel = channel

    @property
    def session_id(self) -> str:
        """The run's id, under graflow's name for it."""
        return self.run.id

    def get_channel(self) -> Channel:
        return self._channel

    def get_result(self, node: str, default: Any = None) -> Any:
        """The result of a node, of a group ``{member id: result}``; ``default`` if there is none (yet)."""
        spec = self.plan[node]
        if spec.is_group:
            return group_result(self._store, self.run, self.plan, node)
        return self._store.results(self.run, [node]).get(node, default)


class TaskExecutionContext:
    """What ``@task(inject_context=True)`` passes as the first argument."""

    def __init__(self, context: ExecutionContext, task_id: str, attempt: int) -> None:
        self._context = context
        self.task_id = task_id
        self.attempt = attempt

    @property
    def session_id(self) -> str:
        return self._context.session_id

    @property
    def retry_count(self) -> int:
        """How many attempts came before this one."""
        return self.attempt - 1

    @property
    def idempotency_key(self) -> str:
        """The same for every run of this attempt's code, and for no other: bodies run at least once."""
        return f"{self.session_id}:{self.task_id}:{self.attempt}"

    def get_channel(self) -> Channel:
        return self._context.get_channel()

    def get_result(self, node: str, default: Any = None) -> Any:
        return self._context.get_result(node, default)


def group_result(store: RunStore, run: RunRef, plan: Plan, group: str) -> dict[str, Any]:
    """``{member id: result}`` of the members of a group that succeeded, in their order; nested groups inside."""
    exits = plan[group].exits
    found = store.results(run, [node for node in exits if not plan[node].is_group])
    return {
        node: group_result(store, run, plan, node) if plan[node].is_group else found[node]
        for node in exits
        if plan[node].is_group or node in found
    }
