"""Members of parallel groups, as the run store has them: their keys, outcomes, items and results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from graflow_celery.core.activation import key_of
from graflow_celery.core.place import Place
from graflow_celery.core.plan import Plan
from graflow_celery.core.policy import GroupPolicy, MemberOutcome
from graflow_celery.core.state import NodeState
from graflow_celery.errors import ParallelGroupError
from graflow_celery.ports import NOTHING, NodeOutcome, RunRef, RunStore


def member_keys(store: RunStore, run: RunRef, place: Place) -> dict[str, str]:
    """The activation key under which each member of a group ends, by the member's id."""
    if place.spec.map is None:
        return {node: place.inside(node).key for node in place.spec.exits}
    return {node: key_of(node, (*place.passes, "0")) for node in item_ids(store, run, place.key, place.spec.id)}


def item_ids(store: RunStore, run: RunRef, key: str, node: str) -> list[str]:
    """The ids of the members of a mapped task; none before its items were counted."""
    count = store.input(run, key)
    return [] if count is NOTHING else [f"{node}[{index}]" for index in range(count)]


def take_items(store: RunStore, run: RunRef, place: Place) -> dict[str, Any]:
    """The items of a mapped task by the keys of the members that receive them.

    Raises:
        LookupError: there is no result and no channel value of that name.
        TypeError: it cannot be iterated, or is a string or a mapping, whose parts nobody means.
    """
    if place.spec.map is None:
        raise TypeError(f"'{place.spec.id}' is no mapped task")
    over = place.spec.map.over
    if over in place.plan.nodes and place.plan[over].is_group:
        found: Any = group_result(store, run, place.plan, over)
        found = list(found.values()) if isinstance(found, dict) else found
    else:
        found = store.values(run, [over]).get(over, NOTHING)
    if found is NOTHING:
        raise LookupError(f"there is no result and no channel value '{over}'")
    if isinstance(found, str | bytes | Mapping) or not isinstance(found, Iterable):
        raise TypeError(f"'{over}' is a {type(found).__name__}; a list is needed")
    prefix = place.spec.id
    return {key_of(f"{prefix}[{index}]", (*place.passes, "0")): item for index, item in enumerate(found)}


def judged(
    found: Mapping[str, NodeOutcome], *, expired: float | None = None, stopped: bool = False
) -> list[MemberOutcome]:
    """What a policy judges. Members that have not ended count as failed.

    ``expired``: because so many seconds were over; ``stopped``: because others failed that the policy asks for.
    """
    late = None if expired is None else f"it did not end within the group's timeout of {expired:g} s"
    if stopped:
        late = "it was not waited for, since the group's policy could not be met any more"
    return [
        MemberOutcome(member, outcome.state is NodeState.SUCCEEDED, outcome.error or _missing(outcome.state, late))
        for member, outcome in found.items()
    ]


def hopeful(found: Mapping[str, NodeOutcome]) -> list[MemberOutcome]:
    """What a policy would judge at the best: all members that have not ended succeed."""
    return [
        MemberOutcome(
            member,
            outcome.state is None or not outcome.state.is_final or outcome.state is NodeState.SUCCEEDED,
            outcome.error or _missing(outcome.state, None),
        )
        for member, outcome in found.items()
    ]


def verdict(policy: GroupPolicy, outcomes: Sequence[MemberOutcome]) -> str | None:
    """What is missing by a policy, None if it is met. One that raises an error is not met: the run has to end."""
    try:
        return policy.judge(outcomes)
    except Exception as error:  # noqa: BLE001  boundary: a policy is the user's code
        return f"its policy raised {type(error).__name__}: {error}"


def _missing(state: NodeState | None, late: str | None) -> str | None:
    if state is NodeState.SKIPPED:
        return "not reached: a task before it failed"
    return late if state is None or not state.is_final else None


def group_result(store: RunStore, run: RunRef, plan: Plan, group: str) -> Any:
    """What a group brought: ``{member id: result}`` of the members that succeeded, in their order.

    Of a mapped task: the list of the results in the order of the items.
    """
    spec = plan[group]
    if spec.map is not None:
        members = item_ids(store, run, group, group)
        results = store.results(run, members)
        return [results[member] for member in members if member in results]
    found = store.results(run, [node for node in spec.exits if not plan[node].is_group])
    return {
        node: group_result(store, run, plan, node) if plan[node].is_group else found[node]
        for node in spec.exits
        if plan[node].is_group or node in found
    }


def first_error(store: RunStore, run: RunRef, error: BaseException | None) -> BaseException | None:
    """Of a group with one failed member, that member's own error."""
    if isinstance(error, ParallelGroupError) and len(error.failed_tasks) == 1:
        return store.error(run, error.failed_tasks[0][0]) or error
    return error
