"""How a workflow and a run look in a notebook: static HTML, every text escaped, nothing from elsewhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from html import escape

from graflow_celery.core.activation import item_of, node_of
from graflow_celery.core.picture import COLOURS, PLAIN, Standing, to_svg
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import RunStatus
from graflow_celery.ports import NodeReport
from graflow_celery.terminal.wording import duration, first_line

_RUNS = {"terminated": "unfinished", "cancelled": "unfinished", "waiting": "asking"}
FAILED_TOLD = 3


def run_as_html(
    plan: Plan,
    run_id: str,
    details: Mapping[str, str],
    nodes: Mapping[str, NodeReport | None],
    errors: Mapping[str, str],
    items: Mapping[str, int],
    now: float,
) -> str:
    """A line with status, workflow, id and time; the graph in the colours of its nodes' states; the first errors.

    Args:
        details: the run's own fields. ``nodes``: how each node of the plan stands, and each activation beside that has
            begun. ``items``: how many items mapped tasks have. ``now``: seconds since the epoch.
    """
    status = details["status"]
    colour = COLOURS.get(_RUNS.get(status, status), PLAIN)
    started, finished = int(details["started"]) / 1000, details.get("finished")
    seconds = max(0.0, (now if finished is None else int(finished) / 1000) - started)
    reason = first_line(details.get("reason", ""))
    head = (
        f'<div><b style="color:{colour}">{escape(status)}</b> {escape(plan.name)} '
        f"<code>{escape(run_id)}</code> {duration(seconds)}{': ' + escape(reason) if reason else ''}</div>"
    )
    picture = to_svg(plan, standings(plan, nodes, items, over=RunStatus(status).is_terminal))
    told = list(errors.items())[:FAILED_TOLD]
    rows = "".join(f"<li><code>{escape(name)}</code> {escape(first_line(text))}</li>" for name, text in told)
    more = f"<li>and {len(errors) - FAILED_TOLD:,} more</li>" if len(errors) > FAILED_TOLD else ""
    return f"<div>{head}{picture}{f'<ul>{rows}{more}</ul>' if rows else ''}</div>"


def standings(
    plan: Plan, nodes: Mapping[str, NodeReport | None], items: Mapping[str, int], *, over: bool
) -> dict[str, Standing]:
    """How the nodes stand that are in no group, and what is said of each: its time, or how its members stand."""
    mapped = _members(nodes)
    found: dict[str, Standing] = {}
    for spec in plan.nodes.values():
        if spec.group is not None:
            continue
        report = nodes.get(spec.id)
        state = "waiting" if report is None else str(report.state)
        if over and state in ("queued", "running", "waiting") and report is not None:
            state = "unfinished"
        note = ""
        if spec.exits:
            note = _folded(Counter(str(one.state) for name in spec.exits if (one := nodes.get(name))), len(spec.exits))
        elif spec.id in items:
            note = _folded(mapped.get(spec.id, Counter()), items[spec.id])
        elif report is not None and report.state.is_final and report.state != "skipped":
            note = duration(report.duration)
        found[spec.id] = Standing(state, note)
    return found


def _members(nodes: Mapping[str, NodeReport | None]) -> dict[str, Counter[str]]:
    """How many members of each mapped task are in each state."""
    found: dict[str, Counter[str]] = {}
    for key, report in nodes.items():
        item = item_of(node_of(key)) if report is not None else None
        if item is not None and report is not None:
            found.setdefault(item[0], Counter())[str(report.state)] += 1
    return found


def _folded(states: Counter[str], members: int) -> str:
    done = states["succeeded"] + states["failed"] + states["skipped"]
    failed = f", {states['failed']:,} failed" if states["failed"] else ""
    return f"{done:,}/{members:,}{failed}"
