"""What the events of a run add to the counts. Pure: no server, no clock."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from graflow_celery.core.activation import item_of, node_of, split
from graflow_celery.core.state import FINAL_STATES, RunStatus
from graflow_celery.metrics.catalogue import (
    BARRIER_WAIT,
    BUCKETS,
    DURATION,
    LOST,
    NODES,
    OTHER,
    POISONED,
    QUEUE_WAIT,
    REPLACED,
    RETRIES,
    RUNS,
    RUNS_STARTED,
    Metric,
)

#: The name of a metric and its labels. Of a histogram, the last is the class ("0.5", "+Inf"), or "ms" for the sum.
Field = tuple[str, ...]
#: The group around an activation, by its key and the graph that it was added with, and whether its barrier waits for
#: the activation's end; None: in none.
Around = Callable[[str, str], tuple[str, bool] | None]
#: The group that tasks are put into which an attempt adds: its name ends in this; see `core.extend`.
_ADDED = re.compile(r">[0-9a-f]{1,8}$")
#: Activations of a run whose waiting is measured at the same time; that of more is not.
MEASURED = 5000
SUM = "ms"
_CLASSES = (*(f"{bound:g}" for bound in BUCKETS), "+Inf")
_ENDS = {f"node_{state.value}": state.value for state in FINAL_STATES}
_RUN_ENDS = {f"run_{status.value}": status.value for status in RunStatus if status.is_terminal}
_QUEUED_AGAIN = frozenset({"node_retried", "node_lost", "node_returned", "feedback_answered"})
_RAN = frozenset({"node_succeeded", "node_failed", "node_retried", "node_iterated", "node_waiting"})


class Labels:
    """Bounds how many workflows, and pairs of workflow and node, have series of their own.

    Args:
        known: those that have.
        most: how many may.
    """

    def __init__(self, known: Iterable[Field], most: int) -> None:
        self._most = most
        self._pairs: set[tuple[str, str]] = set()
        self._workflows: set[str] = set()
        names = {
            metric.name: metric.labels for metric in (NODES, RETRIES, LOST, REPLACED, POISONED, DURATION, BARRIER_WAIT)
        }
        for name, *labels in known:
            if name in names:
                self._pairs.add((labels[0], labels[1]))
            elif labels:
                self._workflows.add(labels[0])

    def workflow(self, name: str) -> str:
        if name not in self._workflows:
            if len(self._workflows) >= self._most:
                return OTHER
            self._workflows.add(name)
        return name

    def pair(self, workflow: str, node: str) -> tuple[str, str]:
        if (workflow, node) not in self._pairs:
            if len(self._pairs) >= self._most:
                return OTHER, OTHER
            self._pairs.add((workflow, node))
        return workflow, node


@dataclass
class Progress:
    """How far a run is counted, and what is open: times in ms since the epoch.

    Attributes:
        at: the id of the last event that was counted.
        queued: since when an activation waits in its queue; 0: not to be measured.
        opened: since when a group is open. ``ended``: when the members of one ended.
        graphs: of tasks that were added, by the pass that they are in.
    """

    at: str = "0-0"
    queued: dict[str, int] = field(default_factory=dict)
    opened: dict[str, int] = field(default_factory=dict)
    ended: dict[str, list[int]] = field(default_factory=dict)
    graphs: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> list[Any]:
        return [self.at, self.queued, self.opened, self.ended, *([self.graphs] if self.graphs else [])]

    @property
    def size(self) -> int:
        return len(self.queued) + sum(map(len, self.ended.values()))


class RunCount:
    """Counts the events of one run into ``counts``.

    Args:
        lost: the failed nodes, by key, that failed because of what they lost.
    """

    def __init__(
        self,
        workflow: str,
        progress: Progress,
        around: Around,
        labels: Labels,
        counts: Counter[Field],
        lost: frozenset[str],
    ) -> None:
        self._workflow = workflow
        self._progress = progress
        self._around = around
        self._labels = labels
        self._counts = counts
        self._lost = lost

    def feed(self, entry: str, event: Mapping[str, str]) -> None:
        """The next event, as the stream has it, and its id there."""
        name, node, at = event.get("event", ""), event.get("node", ""), int(entry.partition("-")[0])
        self._progress.at = entry
        if event.get("graph"):
            self._progress.graphs[_pass_of(node)] = event["graph"]
        if name.startswith("run_"):
            self._run(name)
        elif name.startswith("group_") or name == "map_expanded":
            self._group(name, node, at)
        elif node:
            self._node(name, node, at, event)

    def _run(self, name: str) -> None:
        workflow = self._labels.workflow(self._workflow)
        if name == "run_started":
            self._add(RUNS_STARTED, workflow)
        elif name in _RUN_ENDS:
            self._add(RUNS, workflow, _RUN_ENDS[name])
            self._progress.queued.clear()
            self._progress.opened.clear()
            self._progress.ended.clear()
            self._progress.graphs.clear()

    def _group(self, name: str, group: str, at: int) -> None:
        if name in ("group_opened", "map_expanded"):
            self._progress.opened[group] = at
            return
        self._progress.opened.pop(group, None)
        for ended in self._progress.ended.pop(group, ()):
            self._observe(BARRIER_WAIT, at - ended, *self._pair(group))
        self._arrive(group, at)
        if _ADDED.search(node_of(group)):
            self._progress.graphs.pop(_pass_of(group), None)

    def _node(self, name: str, node: str, at: int, event: Mapping[str, str]) -> None:
        progress = self._progress
        if name == "node_queued":
            # One that is queued again waits before, for as long as its policy says; that is no wait in a queue.
            if node not in progress.queued and progress.size < MEASURED:
                progress.queued[node] = at
        elif name == "node_started":
            since = progress.queued.pop(node, None)
            if since is None:
                around = self._where(node) if event.get("attempt") == "1" else None
                since = 0 if around is None else progress.opened.get(around[0], 0)
            if since:
                self._observe(QUEUE_WAIT, at - since, self._labels.workflow(self._workflow))
        elif name in _QUEUED_AGAIN and progress.size < MEASURED:
            progress.queued[node] = 0
        self._count(name, node, event)
        if name in _ENDS:
            progress.queued.pop(node, None)
            self._arrive(node, at)

    def _count(self, name: str, node: str, event: Mapping[str, str]) -> None:
        pair = self._pair(node) if name in _ENDS or name in _QUEUED_AGAIN or name in _RAN else ("", "")
        if name in _ENDS:
            self._add(NODES, *pair, _ENDS[name])
        if name == "node_retried":
            self._add(RETRIES, *pair)
        elif name in ("node_lost", "node_returned"):
            self._add(REPLACED, *pair)
        poisoned = name == "node_failed" and node in self._lost
        if poisoned:
            self._add(POISONED, *pair)
        if name == "node_lost" or poisoned:
            self._add(LOST, *pair)
        elif name in _RAN and event.get("worker"):
            self._observe(DURATION, int(event.get("duration", 0)), *pair)

    def _arrive(self, node: str, at: int) -> None:
        around = self._where(node)
        if around is not None and around[1] and self._progress.size < MEASURED:
            self._progress.ended.setdefault(around[0], []).append(at)

    def _where(self, key: str) -> tuple[str, bool] | None:
        return self._around(key, self._progress.graphs.get(_pass_of(key), "") if self._progress.graphs else "")

    def _pair(self, key: str) -> tuple[str, str]:
        """A group of added tasks has the name of the task that added them, and a mark."""
        node = _ADDED.sub("", node_of(key))
        item = item_of(node)
        mark = ">" if len(node) < len(node_of(key)) else ""
        return self._labels.pair(self._workflow, (node if item is None else item[0]) + mark)

    def _add(self, metric: Metric, *labels: str) -> None:
        self._counts[metric.name, *labels] += 1

    def _observe(self, metric: Metric, ms: int, *labels: str) -> None:
        ms = max(0, ms)
        self._counts[metric.name, *labels, _CLASSES[bisect_left(BUCKETS, ms / 1000)]] += 1
        self._counts[metric.name, *labels, SUM] += ms


def _pass_of(key: str) -> str:
    """The outermost pass of an activation: one of its own for what one attempt added."""
    _, passes = split(key)
    return passes[0] if passes else ""
