"""How workflows and runs look in a notebook: well-formed, escaped, and nothing from elsewhere."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from graflow_celery.core.expr import ParallelGroup
from graflow_celery.core.picture import COLOURS, MOST, Standing, to_svg
from graflow_celery.core.state import NodeState
from graflow_celery.core.task import Task, task
from graflow_celery.ports import NodeReport
from graflow_celery.terminal.notebook import run_as_html
from graflow_celery.workflows import WorkflowContext, workflow

EVIL = "<script>alert(1)</script>&\"'"


def etl() -> WorkflowContext:
    with workflow(f"etl {EVIL}") as wf:
        fetch, odd, publish = Task("fetch"), Task(EVIL), Task("publish")
        fetch >> ParallelGroup([Task("a"), Task("b"), Task("c")], name="sides") >> publish
        fetch >> odd >> publish
        fetch >> publish
        publish >> odd
    return wf


def parsed(markup: str) -> ElementTree.Element:
    """The markup as XML; nothing in it runs or comes from elsewhere."""
    assert "<script" not in markup
    assert not re.search(r"(href|src|url\(|on\w+=)", markup)
    return ElementTree.fromstring(markup)


def texts(element: ElementTree.Element) -> list[str]:
    return [str(one.text) for one in element.iter("{http://www.w3.org/2000/svg}text")]


def test_a_workflow_is_drawn_with_its_groups_folded() -> None:
    drawn = parsed(to_svg(etl().plan("fetch")))
    assert texts(drawn) == ["fetch", "sides", "3 members", EVIL[:19] + "…", "publish"]
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}path"))) == 6
    titles = [str(one.text) for one in drawn.iter("{http://www.w3.org/2000/svg}title")]
    assert EVIL in titles


def test_boxes_do_not_lie_on_each_other_and_edges_pass_beside_them() -> None:
    drawn = parsed(to_svg(etl().plan("fetch")))
    corners = [(one.get("x"), one.get("y")) for one in drawn.iter("{http://www.w3.org/2000/svg}rect")]
    assert len(set(corners)) == len(corners) == 5  # a group's box is a double one


def test_states_have_colours_and_notes() -> None:
    drawn = to_svg(etl().plan("fetch"), {"fetch": Standing("failed", "3 ms"), "sides": Standing("running", "2/3")})
    assert {"3 ms", "2/3"} <= set(texts(parsed(drawn)))
    assert COLOURS["failed"] in drawn
    assert COLOURS["running"] in drawn


def test_a_workflow_shows_itself_or_why_it_cannot() -> None:
    with workflow("line") as wf:
        Task("first") >> Task("second")
    assert texts(parsed(wf._repr_html_())) == ["first", "second"]
    with workflow(f"empty {EVIL}") as empty:
        pass
    assert (
        parsed(empty._repr_html_()).text
        == f"empty {EVIL}: The workflow has no tasks. Write some inside its `with` block."
    )


@pytest.mark.parametrize("count", [1, MOST, MOST + 1, 5000])
def test_a_large_graph_is_counted(count: int) -> None:
    with workflow("long") as wf:
        last = Task("t0")
        for index in range(1, count):
            last = last >> Task(f"t{index}")  # type: ignore[assignment]
    drawn = to_svg(wf.plan())
    assert (f"{count:,} nodes" in drawn) == (count > MOST)
    assert len(drawn) < 80_000


def report(state: NodeState, seconds: float = 0.0) -> NodeReport:
    return NodeReport(state, 1, "w1", 1000.0, seconds, 0)


def test_a_run_shows_status_times_states_and_errors() -> None:
    plan = etl().plan("fetch")
    nodes = {
        "fetch": report(NodeState.SUCCEEDED, 1.5),
        "sides": report(NodeState.RUNNING),
        "a": report(NodeState.SUCCEEDED),
        "b": report(NodeState.FAILED),
        "c": None,
        EVIL: None,
        "publish": None,
    }
    details = {"status": "running", "started": "1000000"}
    errors = {f"b{index}": f"ValueError: {EVIL}\nmore" for index in range(5)}
    page = run_as_html(plan, "r1", details, nodes, errors, {}, now=1012.0)
    root = parsed(page)
    assert {"1.5 s", "2/3, 1 failed"} <= set(texts(root))
    text = "".join(root.itertext())
    assert "running" in text
    assert "12.0 s" in text
    assert text.endswith(f"b2 ValueError: {EVIL}and 2 more")
    details |= {"status": "cancelled", "reason": EVIL, "finished": "1013000"}
    ended = run_as_html(plan, "r1", details, nodes, {}, {}, now=0.0)
    assert "13.0 s" in "".join(parsed(ended).itertext())
    assert COLOURS["unfinished"] in ended


def test_a_mapped_task_is_one_box_that_counts_its_members() -> None:
    @task
    def score(item: int) -> int:
        return item

    with workflow("mapped") as wf:
        Task("items") >> score.map() >> Task("sum")
    plan = wf.plan()
    assert texts(parsed(wf._repr_html_())) == ["items", "score", "a member for each item", "sum"]
    nodes: dict[str, NodeReport | None] = {
        "items": report(NodeState.SUCCEEDED, 1.0),
        "score": report(NodeState.RUNNING),
    }
    nodes |= {f"score[{index}]": report(NodeState.FAILED if index == 7 else NodeState.SUCCEEDED) for index in range(20)}
    nodes["score[20]"] = report(NodeState.RUNNING)
    details = {"status": "running", "started": "1000000"}
    page = run_as_html(plan, "r1", details, nodes, {}, {"score": 2000}, now=1012.0)
    assert texts(parsed(page)) == ["items", "1.0 s", "score", "20/2,000, 1 failed", "sum"]
