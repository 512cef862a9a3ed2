"""``graflow-celery runs``, ``show``, ``watch`` and ``cancel``: look after runs on the workers."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import click
from rich.text import Text

from graflow_celery.cli import carrying, options, render
from graflow_celery.cli.interruption import exit_code_of, terminable
from graflow_celery.core.activation import item_of, split
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import RunStatus
from graflow_celery.distributed import recent_runs
from graflow_celery.ports import RunRef
from graflow_celery.runs import Run
from graflow_celery.terminal.progress import ProgressModel, steps
from graflow_celery.terminal.wording import duration, first_line

ERRORS_TOLD = 10
#: Lines of nodes: of more, those are told of that failed or go on, and how many others there are.
NODES_TOLD = 200


@click.command()
@click.option("--count", "-n", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@options.as_json
def runs(count: int, as_json: bool) -> int:
    """List the runs started last, the newest first."""
    render.show_warnings()
    found = [(run.id, run.details()) for run in recent_runs(count)]
    if as_json:
        render.say_json([_facts(run_id, details) for run_id, details in found])
    elif not found:
        render.say("No runs in the store. Start one: graflow-celery run FILE --backend celery")
    else:
        columns = ("run", "workflow", "status", "started", "took", "tasks", "failed", "reason")
        render.table(columns, (_row(run_id, details) for run_id, details in found), right=("took", "tasks", "failed"))
    return 0


@click.command()
@click.argument("run_id", metavar="RUN")
@options.as_json
def show(run_id: str, as_json: bool) -> int:
    """Show how a run stands: its nodes by state, errors and times."""
    render.show_warnings()
    run = Run.get(run_id)
    facts = {**_facts(run_id, run.details()), "obstacle": run.obstacle()}
    nodes = _nodes(run)
    errors = run.errors()
    if as_json:
        render.say_json({**facts, "nodes": nodes, "errors": errors})
        return 0
    status = facts["status"]
    render.say(Text.assemble((status, render.style_of(status)), f"  {facts['workflow']}  ", (f"run {run_id}", "dim")))
    started = f"{_clock(facts['started'])}, {'took' if facts['finished'] else 'for'} {duration(facts['seconds'])}"
    told = [("started", started)]
    if facts["reason"] and not errors:
        told.append(("reason", first_line(facts["reason"])))
    if facts["obstacle"]:
        told.append(("waits", facts["obstacle"]))
    render.pairs(told)
    render.say()
    render.table(
        ("node", "state", "took", "attempt", "worker or members"),
        _node_rows(run.plan, nodes),
        right=("took", "attempt"),
    )
    if errors:
        render.say()
        render.table(("failed", "error"), _error_rows(errors))
    return 0


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="Print events and summary as JSON, one object a line.")
@options.traceback
def watch(run_id: str, as_json: bool, traceback: bool) -> int:
    """Follow a run until it ends. Exit status 0 if it succeeded, 1 if not; Ctrl-C leaves the run alone."""
    render.show_warnings()
    run = Run.get(run_id)
    shown = run.display(as_json=as_json)
    try:
        with terminable(), shown:
            for record in run.events(follow=True):
                shown.feed(record)
    except KeyboardInterrupt as interrupt:
        render.complain([f"The run goes on. Look again: graflow-celery watch {run.id}"], kind="interrupted")
        return exit_code_of(interrupt)
    return carrying.tell(_ending(run, shown.model), as_json=as_json, traceback=traceback)


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--reason", default="", metavar="TEXT", help="Why; shown with the run.")
def cancel(run_id: str, reason: str) -> int:
    """End a run: nothing of it starts any more. What runs at this moment runs to its end."""
    render.show_warnings()
    run = Run.get(run_id)
    if run.cancel(reason):
        render.say(f"cancelled {run.id}")
    else:
        render.say(f"{run.id} had ended before: {run.status}")
    return 0


def _ending(run: Run, model: ProgressModel) -> carrying.Ending:
    try:
        return carrying.Ending(run.id, model, run.result())
    except Exception as error:  # boundary: what a task raised comes out here as it is
        if model.status is RunStatus.SUCCEEDED:
            raise
        return carrying.Ending(run.id, model, error=error, error_of=carrying.error_of(run))


def _facts(run_id: str, details: Mapping[str, str]) -> dict[str, Any]:
    """A run's own fields, as a program wants them: numbers as numbers, times in seconds."""
    started = int(details["started"]) / 1000
    finished = int(details["finished"]) / 1000 if "finished" in details else None
    return {
        "run": run_id,
        "workflow": details.get("workflow", ""),
        "status": details["status"],
        "reason": details.get("reason", ""),
        "started": started,
        "finished": finished,
        "seconds": round(max(0.0, (finished or time.time()) - started), 3),
        "tasks": int(details.get("tasks", 0)),
        "failed": int(details.get("failed", 0)),
        "graph": RunRef(run_id, details["graph"]).hash,
    }


def _row(run_id: str, details: Mapping[str, str]) -> list[str | Text]:
    facts = _facts(run_id, details)
    return [
        run_id,
        facts["workflow"],
        Text(facts["status"], style=render.style_of(facts["status"])),
        _clock(facts["started"]),
        duration(facts["seconds"]),
        f"{facts['tasks']:,}",
        Text(f"{facts['failed']:,}", style=render.style_of("failed") if facts["failed"] else ""),
        first_line(facts["reason"], longest=60),
    ]


def _clock(seconds: float) -> str:
    """A time as this machine's clock shows it: today's without the date."""
    at = datetime.fromtimestamp(seconds).astimezone()
    return f"{at:%H:%M:%S}" if at.date() == datetime.now().astimezone().date() else f"{at:%Y-%m-%d %H:%M}"


def _nodes(run: Run) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, report in run.nodes().items():
        found[name] = {"state": "waiting"}
        if report is not None:
            found[name] = {
                "state": str(report.state),
                "attempt": report.attempt,
                "worker": report.worker,
                "started": report.started,
                "seconds": report.duration,
                **({"added": True} if report.graph else {}),
            }
    return found


def _node_rows(plan: Plan, nodes: Mapping[str, Mapping[str, Any]]) -> Iterator[list[str | Text]]:
    """The nodes that are in no group, below each the tasks that it added; of a group, how its members stand."""
    members, added = _members(plan, nodes)
    names = steps(plan)
    told = chosen(names, {name: nodes[name]["state"] for name in names})
    for name in told:
        node = nodes[name]
        if plan[name].is_group:
            yield _group_row(name, node, members[name])
        else:
            state, took, attempt = node["state"], "", ""
            if "attempt" in node:
                took = duration(time.time() - node["started"] if state == "running" else node["seconds"])
                attempt = str(node["attempt"] or "")
            yield [name, Text(state, style=render.style_of(state)), took, attempt, str(node.get("worker", ""))]
        for key in added.get(name, ()):
            yield _group_row(f"  + added by {name}", nodes[key], members[key])
    if len(told) < len(names):
        others = Counter(nodes[name]["state"] for name in set(names).difference(told))
        yield [f"... and {len(names) - len(told):,} more", "", "", "", f"{_counts(others)}; all of them: --json"]


def chosen(names: Sequence[str], states: Mapping[str, str]) -> list[str]:
    """The nodes to tell of, in their order: all if they are few, else those that failed, then those that go on."""
    ranks = {"failed": 0, "running": 1, "queued": 1, "waiting": 3}
    ranked = sorted(range(len(names)), key=lambda index: ranks.get(states[names[index]], 2))
    return [names[index] for index in sorted(ranked[:NODES_TOLD])]


def _members(
    plan: Plan, nodes: Mapping[str, Mapping[str, Any]]
) -> tuple[Mapping[str, Counter[str]], Mapping[str, list[str]]]:
    """How many members of each group are in which state; and the groups of added tasks, by who added them."""
    members: dict[str, Counter[str]] = defaultdict(Counter)
    added: dict[str, list[str]] = defaultdict(list)
    groups = {split(key)[1]: key for key, node in nodes.items() if node.get("added") and ">" in split(key)[0]}
    for key in groups.values():
        added[split(key)[0].rpartition(">")[0]].append(key)
    for spec in plan.nodes.values():
        members[spec.id].update(nodes[name]["state"] for name in spec.exits)
    for key, node in nodes.items():
        name, passes = split(key)
        item = item_of(name)
        if item is not None and not passes:
            members[item[0]][node["state"]] += 1
        elif passes[:-1] in groups:
            members[groups[passes[:-1]]][node["state"]] += 1
    return members, added


def _group_row(name: str, node: Mapping[str, Any], states: Mapping[str, int]) -> list[str | Text]:
    state = node["state"]
    state = "running" if state == "waiting" and states and set(states) != {"waiting"} else state
    took = duration(node["seconds"]) if node.get("seconds") else ""
    return [
        name,
        Text(state, style=render.style_of(state)),
        took,
        "",
        _counts(states),
    ]


def _counts(states: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {one}" for one, n in sorted(states.items(), key=lambda item: (-item[1], item[0])))


def _error_rows(errors: Mapping[str, str]) -> Iterator[list[str | Text]]:
    for name in list(errors)[:ERRORS_TOLD]:
        yield [name, first_line(errors[name])]
    if len(errors) > ERRORS_TOLD:
        yield [f"... and {len(errors) - ERRORS_TOLD:,} more", "see --json"]
