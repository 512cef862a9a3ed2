"""``graflow-celery explain``: what a run waits for now, what befell it, and what can be done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import click
from rich.text import Text

from graflow_celery.cli import options, render
from graflow_celery.engine.explanation import Deadline, Explanation, Happening, OpenGroup, OpenNode
from graflow_celery.runs import Run
from graflow_celery.terminal.wording import counted, duration, first_line

MOST = 10
#: Deadlines of a node that are told.
TOLD = 2


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--all", "everything", is_flag=True, help=f"All nodes and events, and not {MOST} of each.")
@options.as_json
def explain(run_id: str, everything: bool, as_json: bool) -> int:
    """Say what a run waits for now, who has it, what comes next, and what befell the run and why.

    All times are the server's.
    """
    render.show_warnings()
    found = Run.get(run_id).explain(None if everything else MOST)
    if as_json:
        render.say_json(found.to_dict())
        return 0
    for line in _headline(found):
        render.say(line)
    _tell_open(found)
    _tell_past(found)
    if found.advice:
        render.say()
        render.say(found.advice)
    return 0


def _headline(found: Explanation) -> Iterator[Text | str]:
    title = (f"  {found.workflow}  ", (f"run {found.run}", "dim"))
    yield Text.assemble((found.status, render.style_of(found.status)), *title)
    if found.finished is not None:
        yield f"  ended {_clock(found.finished)}, after {duration(found.finished - found.started)}"
    else:
        yield f"  started {_clock(found.started)}, {duration(found.at - found.started)} ago"
    if found.reason:
        yield f"  {first_line(found.reason)}"
    states = ", ".join(f"{count:,} {state}" for state, count in found.counts.items())
    yield f"  tasks: {states or 'none began'}"
    if found.timeout is not None:
        yield f"  its timeout ends it {_then(found, found.timeout)}"
    if found.finished is None:
        yield f"  monitor: {found.monitor or 'none leads'}"


def _tell_open(found: Explanation) -> None:
    for obstacle in found.obstacles:
        render.say()
        label = "stalled: " if found.finished is None else "note: "
        render.say(Text.assemble((label, render.style_of("warn")), obstacle.reason))
        render.say(Text(f"  {obstacle.remedy}", style="dim"))
    for request in found.requests:
        render.say()
        render.say(f"'{request.node}' asks: {first_line(request.prompt)}")
        render.say(Text(f"  {request.command}", style="dim"))
    if found.groups:
        render.say()
        render.table(("group", "ended", "open for", "what it needs and what comes next"), _group_rows(found))
    if found.nodes:
        render.say()
        render.table(("waits for", "state", "for", "where, and what comes next"), _node_rows(found))


def _tell_past(found: Explanation) -> None:
    if found.happenings:
        render.say()
        render.table(("at", "what happened", "attempt", "why"), (_happening(item) for item in found.happenings))
    if found.failures:
        render.say()
        rows = ([item.node, str(item.attempt), item.worker, first_line(item.error)] for item in found.failures)
        render.table(("failed", "attempt", "worker", "error"), rows)


def _node_rows(found: Explanation) -> Iterator[list[str | Text]]:
    for node in found.nodes:
        since = duration(found.at - node.since) if 0 < node.since <= found.at else ""
        text = "; ".join([*_whereabouts(node), *_next(found, node.deadlines)])
        yield [node.node, Text(node.state, style=render.style_of(node.state)), since, text]
    if found.more_nodes:
        yield [f"... and {found.more_nodes:,} more", "", "", "see --all"]


def _whereabouts(node: OpenNode) -> Iterator[str]:
    if node.state == "running":
        beat = "its lease is gone" if node.last_beat is None else f"last beat {duration(node.last_beat)} ago"
        yield f"on {node.worker}" + (f" (pid {node.pid})" if node.pid is not None else "")
        yield beat
    elif node.held_by:
        yield f"received by {node.held_by}, not begun"
    elif node.state == "queued":
        yield f"in queue '{node.queue}'" + (
            "" if node.messages is None else f", where {counted(node.messages, 'message')} wait"
        )
        yield counted(node.consumers, "live worker") + " for it" if node.consumers else "no live worker consumes it"
    if node.attempt > 1:
        lost = f", {node.losses} lost" if node.losses else ""
        failed = f", {node.retries} failed" if node.retries else ""
        yield f"attempt {node.attempt}{lost}{failed}"


def _group_rows(found: Explanation) -> Iterator[list[str | Text]]:
    for group in found.groups:
        text = "; ".join([group.needs, *_next(found, group.deadlines)])
        yield [group.node, _ended(group), duration(max(0.0, found.at - group.since)), text]
    if found.more_groups:
        yield [f"... and {found.more_groups:,} more", "", "", "see --all"]


def _ended(group: OpenGroup) -> str:
    if group.members is None:
        return "items not counted yet"
    return f"{group.ended:,} of {group.members:,}" + (f", {group.failed:,} failed" if group.failed else "")


def _next(found: Explanation, deadlines: Sequence[Deadline]) -> Iterator[str]:
    for deadline in deadlines[:TOLD]:
        yield f"{deadline.what} {_then(found, deadline.at)}"


def _then(found: Explanation, at: float) -> str:
    return f"in {duration(at - found.at)}" if at > found.at else f"now, {duration(found.at - at)} late"


def _happening(item: Happening) -> list[str | Text]:
    what, _, how = item.event.partition("_")
    about = item.node or what
    worker = f" on {item.worker}" if item.worker else ""
    said = {
        "carried_out": f"seen to by the monitor{worker}",
        "code_differs": f"has other code{worker}",
        "blobs_missing": "missed content",
    }.get(item.event, how)
    return [_clock(item.at), f"{about} {said}", str(item.attempt or ""), first_line(item.reason)]


def _clock(at: float) -> str:
    return f"{datetime.fromtimestamp(at).astimezone():%H:%M:%S}"
