"""Policies: they decide, others act.

A group policy judges the outcomes of a parallel group at its barrier. A scheduling policy says which of the nodes that
are ready at the same time goes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from graflow_celery.core.quick import quick
from graflow_celery.errors import ConfigError, ParallelGroupError

if TYPE_CHECKING:
    from graflow_celery.core.plan import NodeSpec


@quick
@dataclass(frozen=True, slots=True)
class MemberOutcome:
    """How one member of a group ended. ``error`` is the text of its failure, None if it succeeded."""

    member: str
    succeeded: bool
    error: str | None = None


@runtime_checkable
class GroupPolicy(Protocol):
    """Says whether a group's outcomes are good enough to go on."""

    def judge(self, outcomes: Sequence[MemberOutcome]) -> str | None:
        """Returns None if the policy is met, else a sentence that says what is missing."""


@dataclass(frozen=True, slots=True)
class StrictGroupPolicy:
    """Every member must succeed."""

    def judge(self, outcomes: Sequence[MemberOutcome]) -> str | None:
        failed = sum(not outcome.succeeded for outcome in outcomes)
        return f"{failed} of {len(outcomes)} members failed, and policy 'strict' allows none" if failed else None


@dataclass(frozen=True, slots=True)
class BestEffortGroupPolicy:
    """The group goes on whatever its members did."""

    def judge(self, outcomes: Sequence[MemberOutcome]) -> str | None:
        return None


@dataclass(frozen=True, slots=True)
class AtLeastNGroupPolicy:
    """At least ``min_success`` members must succeed."""

    min_success: int

    def __post_init__(self) -> None:
        if self.min_success < 0:
            raise ConfigError(f"AtLeastNGroupPolicy: min_success={self.min_success} must not be negative.")

    def judge(self, outcomes: Sequence[MemberOutcome]) -> str | None:
        succeeded = sum(outcome.succeeded for outcome in outcomes)
        if succeeded >= self.min_success:
            return None
        return f"{succeeded} of {len(outcomes)} members succeeded, and policy 'at_least_n' needs {self.min_success}"


@dataclass(frozen=True, slots=True)
class CriticalGroupPolicy:
    """The members named in ``critical_task_ids`` must succeed; the others may fail."""

    critical_task_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "critical_task_ids", tuple(self.critical_task_ids))

    def judge(self, outcomes: Sequence[MemberOutcome]) -> str | None:
        critical = set(self.critical_task_ids)
        failed = sorted(outcome.member for outcome in outcomes if outcome.member in critical and not outcome.succeeded)
        return f"critical members failed: {', '.join(failed)}" if failed else None


@dataclass(frozen=True, slots=True)
class TaskResult:
    """How one member ended, in the words of graflow's policies."""

    task_id: str
    success: bool
    error_message: str | None = None


class GroupExecutionPolicy:
    """The base of group policies written for graflow: override :meth:`on_group_finished`.

    New ones need no base: any object with ``judge(outcomes)`` is a policy.
    """

    def get_name(self) -> str:
        return type(self).__name__

    def on_group_finished(
        self, group_id: str, tasks: Sequence[Any], results: dict[str, TaskResult], context: Any
    ) -> None:
        """Raises :exc:`ParallelGroupError` if the group is to fail. ``tasks`` are the members' ids."""
        raise NotImplementedError(f"{type(self).__name__} has to override on_group_finished().")  # abstract

    def judge(self, outcomes: Sequence[MemberOutcome]) -> str | None:
        results = {item.member: TaskResult(item.member, item.succeeded, item.error) for item in outcomes}
        try:
            self.on_group_finished("", list(results), results, None)
        except ParallelGroupError as error:
            return error.detail
        return None


_BY_NAME: dict[str, type[StrictGroupPolicy | BestEffortGroupPolicy]] = {
    "strict": StrictGroupPolicy,
    "best_effort": BestEffortGroupPolicy,
}


def as_policy(policy: str | GroupPolicy) -> GroupPolicy:
    """A policy from its name or itself.

    Raises:
        ConfigError: it is neither a known name nor an object with ``judge(outcomes)``.
    """
    if isinstance(policy, str):
        if policy in _BY_NAME:
            return _BY_NAME[policy]()
        raise ConfigError(
            f"Unknown group policy '{policy}'. Use 'strict', 'best_effort', AtLeastNGroupPolicy(n), "
            f"CriticalGroupPolicy([...]) or an object with judge(outcomes)."
        )
    if isinstance(policy, GroupPolicy):
        return policy
    raise ConfigError(f"A group policy needs a method judge(outcomes); {type(policy).__name__} has none.")


@runtime_checkable
class SchedulingPolicy(Protocol):
    """Says which of the nodes that are ready goes first, where not all of them can start."""

    def rank(self, node: NodeSpec) -> Any:
        """What nodes are sorted by, the smallest first; those of equal rank keep the order in which they got ready."""


@dataclass(frozen=True, slots=True)
class FifoPolicy:
    """First ready, first started."""

    def rank(self, node: NodeSpec) -> Any:
        return 0


@dataclass(frozen=True, slots=True)
class PriorityPolicy:
    """The highest ``@task(priority=...)`` first; a task without one counts as 0."""

    def rank(self, node: NodeSpec) -> Any:
        return -(node.options.priority or 0)


_SCHEDULING: dict[str, type[FifoPolicy | PriorityPolicy]] = {"fifo": FifoPolicy, "priority": PriorityPolicy}


def as_scheduling_policy(policy: str | SchedulingPolicy | None) -> SchedulingPolicy:
    """A scheduling policy from its name or itself. Raises ConfigError if it is neither."""
    if policy is None:
        return FifoPolicy()
    if isinstance(policy, str) and policy in _SCHEDULING:
        return _SCHEDULING[policy]()
    if not isinstance(policy, str) and isinstance(policy, SchedulingPolicy):
        return policy
    raise ConfigError(f"Unknown scheduling policy {policy!r}. Use 'fifo', 'priority' or an object with rank(node).")
