"""What `show` tells of a run with thousands of nodes: what matters, and how many others there are."""

from __future__ import annotations

from graflow_celery.cli.inspecting import NODES_TOLD, chosen


def test_of_few_nodes_all_are_told_in_their_order() -> None:
    names = [f"n{index}" for index in range(NODES_TOLD)]
    assert chosen(names, dict.fromkeys(names, "succeeded")) == names


def test_of_many_nodes_those_that_failed_or_go_on_are_told_first() -> None:
    names = [f"n{index}" for index in range(10_000)]
    states = {**dict.fromkeys(names, "waiting"), **dict.fromkeys(names[:5_000], "succeeded")}
    states |= {"n4999": "failed", "n5000": "running", "n9000": "queued"}
    told = chosen(names, states)
    assert len(told) == NODES_TOLD
    assert {"n4999", "n5000", "n9000"} <= set(told)
    assert told == sorted(told, key=names.index)
    assert "n9999" not in told
