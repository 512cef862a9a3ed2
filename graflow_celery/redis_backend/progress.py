"""How far a run is, in tasks, from the fields of the run itself: the same cost for a run of three tasks and of 100,000.

The store counts what has ended by state, groups among them, which are no tasks; so it counts groups apart too. How many
tasks there are the plan says, and for mapped tasks the number of their items, when it is known. What was added while
the run went on, and what a jump had run again, comes to the total when it has ended.
"""

from __future__ import annotations

from collections.abc import Mapping

from graflow_celery.core.state import NodeState, RunState

ENDED = (NodeState.SUCCEEDED, NodeState.FAILED, NodeState.SKIPPED)
_BARRIER = "barrier:"


def progress(details: Mapping[str, str]) -> dict[str, int]:
    """``total``, and how many of them ``succeeded``, ``failed`` and were ``skipped``, of a run's fields."""

    def number(name: str) -> int:
        return int(details.get(name, 0))

    ended = {str(state): max(0, number(state) - number(f"groups_{state}")) for state in ENDED}
    return {"total": max(number("tasks") + number("members"), sum(ended.values())), **ended}


def counts_of(state: RunState) -> dict[str, str | int]:
    """The fields by which :func:`progress` goes, of a run that goes on from a state."""
    fields: dict[str, str | int] = dict.fromkeys((f"{kind}{one}" for one in ENDED for kind in ("", "groups_")), 0)
    for record in state.nodes.values():
        if record.state in ENDED:
            fields[record.state] = int(fields[record.state]) + 1
            if not record.attempt and record.state is not NodeState.SKIPPED:  # a skipped task has no attempt either
                fields[f"groups_{record.state}"] = int(fields[f"groups_{record.state}"]) + 1
    members = (count for key, count in state.counts.items() if key.startswith(_BARRIER))
    return {**fields, "members": sum(members)}
