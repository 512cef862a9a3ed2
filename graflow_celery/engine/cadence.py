"""When a checkpoint is taken without being asked for."""

from __future__ import annotations

from typing import Any

from graflow_celery.core.activation import node_of
from graflow_celery.core.commands import ExpireFeedback
from graflow_celery.core.state import Applied, Transition


def occasion(transition: Transition, applied: Applied, every: int) -> dict[str, Any] | None:
    """What to note of the checkpoint that is due after a commit; None if none is.

    One is due whenever ``every`` more nodes have ended (0 for never), and when a person is late, so that the run can be
    left. Of a run that has ended none is.
    """
    if applied.stale or applied.status.is_terminal:
        return None
    if transition.pauses and transition.node is not None:
        asked = [command.request for command in transition.acknowledges if isinstance(command, ExpireFeedback)]
        return {"reason": "feedback_timeout", "task_id": node_of(transition.node), "feedback_id": "".join(asked)}
    if every and transition.is_final and applied.ended % every == 0:
        return {"reason": "automatic", "nodes_ended": applied.ended}
    return None
