"""What holds of every step of every run, whatever its workflow is."""

from __future__ import annotations

from collections.abc import Mapping

from graflow_celery.core.activation import node_of
from graflow_celery.core.commands import SkipNode
from graflow_celery.core.plan import NodeSpec
from graflow_celery.core.state import ALLOWED, NodeRecord, NodeState, RunState, Transition


def check_step(
    specs: Mapping[str, NodeSpec], before: RunState, after: RunState, transition: Transition | None = None
) -> None:
    """Raises AssertionError if a step broke a law. ``transition`` is None where an attempt began or a fence refused."""
    after.check()
    assert not before.status.is_terminal or before == after, "a run that ended changed"
    mirror = transition.mirror if transition is not None else None
    assert before.nodes.keys() <= after.nodes.keys(), "a record vanished"
    for key, record in after.nodes.items():
        if key == mirror and transition is not None:
            assert record == after.nodes[transition.node or ""], f"{key} does not mirror {transition.node}"
        elif (old := before.nodes.get(key)) != record:
            _check_record(key, old, record)
            lost = transition is not None and transition.loses and key == transition.node
            assert record.losses == (old.losses if old is not None else 0) + lost, f"{key} has {record.losses} losses"
    for key, (arrived, _) in before.arrivals.items():
        assert after.arrivals[key][0] >= arrived, f"{key} lost arrivals"
    assert after.ended - before.ended == int(transition is not None and transition.is_final)
    if not after.status.is_terminal:
        assert after.outstanding == open_outside(specs, after), "the run waits for what is open outside of groups"


def open_outside(specs: Mapping[str, NodeSpec], state: RunState) -> int:
    """How many activations outside of every group have begun to be due and have not ended."""
    opened = sum(
        1
        for key, record in state.nodes.items()
        if not record.state.is_final and node_of(key) in specs and specs[node_of(key)].group is None
    )
    skips = (command.node for command in state.outbox if isinstance(command, SkipNode))
    return opened + sum(1 for key in skips if specs[node_of(key)].group is None)


def _check_record(key: str, old: NodeRecord | None, new: NodeRecord) -> None:
    assert not new.worker or new.state is NodeState.RUNNING, f"{key} is run by {new.worker} and is {new.state}"
    if old is None:
        assert new.state not in (NodeState.WAITING, NodeState.SUCCEEDED), f"{key} began as {new.state}"
        return
    assert not old.state.is_final, f"{key} had ended, and changed"
    assert new.graph == old.graph, f"{key} moved to another graph"
    assert new.cycle >= old.cycle, f"{key} forgot how often it ran"
    assert new.retries >= old.retries, f"{key} forgot its retries"
    if old.attempt == new.attempt:
        assert new.state in ALLOWED[old.state], f"{key} went from {old.state} to {new.state}"
        return
    assert new.attempt == old.attempt + 1, f"{key} went from attempt {old.attempt} to {new.attempt}"
    assert new.state in (NodeState.QUEUED, NodeState.WAITING), f"{key} began attempt {new.attempt} as {new.state}"
    assert new.state in ALLOWED[old.state], f"{key} went from {old.state} to {new.state}"
