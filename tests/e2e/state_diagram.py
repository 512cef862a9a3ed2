"""The diagram of states in docs/design.md, made from the tables in `core/state.py`.

`python -m tests.e2e.state_diagram` writes it into the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graflow_celery.core.state import ALLOWED, NodeState, RunStatus
from tests.e2e.markdown import ROOT

PAGE = ROOT / "docs" / "design.md"
START = "[*]"

Edge = tuple[str, str]

#: What brings each move of a node about. Those without a record come from the start.
NODE_MOVES: Mapping[Edge, str] = {
    (START, NodeState.QUEUED): "dispatch",
    (START, NodeState.RUNNING): "group opens, or begin",
    (START, NodeState.FAILED): "code",
    (START, NodeState.SKIPPED): "dead path",
    (NodeState.QUEUED, NodeState.RUNNING): "begin",
    (NodeState.QUEUED, NodeState.QUEUED): "retry, message lost",
    (NodeState.QUEUED, NodeState.FAILED): "code",
    (NodeState.RUNNING, NodeState.QUEUED): "retry, iteration, process lost",
    (NodeState.RUNNING, NodeState.WAITING): "added tasks, feedback",
    (NodeState.RUNNING, NodeState.SUCCEEDED): "result, or policy met",
    (NodeState.RUNNING, NodeState.FAILED): "exception, lost too often, or policy",
    (NodeState.WAITING, NodeState.QUEUED): "answer",
    (NodeState.WAITING, NodeState.SUCCEEDED): "added tasks ended",
    (NodeState.WAITING, NodeState.FAILED): "one of them failed",
}

_ENDS: Mapping[RunStatus, str] = {
    RunStatus.SUCCEEDED: "nothing outstanding",
    RunStatus.FAILED: "node failed, or graph lost",
    RunStatus.CANCELLED: "cancel, or timeout",
    RunStatus.TERMINATED: "terminate, or max_steps",
}

RUN_MOVES: Mapping[Edge, str] = {
    (START, RunStatus.RUNNING): "submit",
    (RunStatus.RUNNING, RunStatus.WAITING): "nobody answered in time",
    (RunStatus.WAITING, RunStatus.RUNNING): "answer",
    **{(RunStatus.RUNNING, end): why for end, why in _ENDS.items()},
    **{(RunStatus.WAITING, end): "" for end in _ENDS},
}

_COMMIT = """\
    state "The life of a commit" as commit {
        direction LR
        state "transition" as commit_transition
        state "stale" as commit_stale
        state "committed, with outbox" as commit_committed
        state "sent" as commit_sent
        state "acknowledged" as commit_acknowledged
        [*] --> commit_transition : event, Scheduler.decide
        commit_transition --> commit_stale : fence refuses
        commit_transition --> commit_committed : commit.lua, one step
        commit_committed --> commit_sent : at once, or by the monitor
        commit_sent --> commit_acknowledged : out of the outbox
        commit_sent --> commit_transition : the next event
    }
"""


def node_edges() -> set[Edge]:
    """What the table allows, and how a node without a record comes to have one."""
    found: set[Edge] = {(source, target) for source, targets in ALLOWED.items() for target in targets}
    return found | {edge for edge in NODE_MOVES if edge[0] == START}


def draw() -> str:
    """The diagram as Mermaid text. Raises KeyError if a move has no words."""
    nodes = {edge: NODE_MOVES[edge] for edge in sorted(node_edges(), key=list(NODE_MOVES).index)}
    run = "\n".join(_part("A run", "run", "LR", RunStatus, RUN_MOVES))
    node = "\n".join(_part("A node of it", "node", "TB", NodeState, nodes))
    return f"stateDiagram-v2\n    direction LR\n{run}\n{node}\n{_COMMIT}"


def _part(title: str, part: str, direction: str, states: Iterable[str], moves: Mapping[Edge, str]) -> Iterable[str]:
    yield f'    state "{title}" as {part} {{'
    yield f"        direction {direction}"
    for state in states:
        yield f'        state "{state}" as {part}_{state}'
    for (source, target), why in moves.items():
        origin = source if source == START else f"{part}_{source}"
        yield f"        {origin} --> {part}_{target}" + (f" : {why}" if why else "")
    yield "    }"


def main() -> None:
    before, fence, rest = PAGE.read_text(encoding="utf-8").partition("```mermaid\n")
    _, closing, after = rest.partition("```\n")
    PAGE.write_text(before + fence + draw() + closing + after, encoding="utf-8")


if __name__ == "__main__":
    main()
