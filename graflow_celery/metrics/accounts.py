"""Brings the counts up to date when somebody asks for them: a bounded piece of work at a time."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial

from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.core.activation import node_of
from graflow_celery.core.place import Place
from graflow_celery.errors import BlobMissingError, BlobRejectedError
from graflow_celery.metrics.counting import Around, Field, Labels, Progress, RunCount
from graflow_celery.ports import RunRef
from graflow_celery.redis_backend.lifetimes import Lifetimes
from graflow_celery.redis_backend.tally import News, Tally, Totals

#: Events that are counted at a scrape; what is beyond waits for the next one.
MOST_EVENTS = 20_000
#: Failed nodes of a run whose errors are looked at, of a thousand events.
FAILED = 500

logger = logging.getLogger(__name__)


class Accounts:
    """Counts the runs of one store.

    Args:
        most: how many workflows, and pairs of workflow and node, have series of their own.
    """

    def __init__(self, runtime: Runtime, most: int) -> None:
        settings = runtime.settings
        lifetimes = Lifetimes(settings.run_ttl, settings.result_ttl, 0.0, 0.0)
        self.tally = Tally(runtime.client, runtime.scripts, runtime.keys, lifetimes)
        self._runtime = runtime
        self.most = most
        self._unreadable: set[str] = set()

    def up_to_date(self) -> tuple[Counter[Field], int]:
        """The counts, and of how many runs at least there is more to count."""
        totals = self.tally.totals()
        counts, backlog = Counter(_fields(totals)), 0
        new, since = self.tally.found(totals.since)
        runs = list(dict.fromkeys([*new, *self.tally.turns()]))
        if runs or since != totals.since:
            fresh, backlog = self._count(totals, counts, runs, since)
            counts = Counter(_fields(self.tally.totals())) if fresh is None else counts + fresh
        return counts, backlog

    def _count(
        self, totals: Totals, known: Mapping[Field, int], runs: Sequence[str], since: int
    ) -> tuple[Counter[Field] | None, int]:
        """Counts what is new of ``runs``; None if somebody else was faster."""
        labels, fresh = Labels(known, self.most), Counter[Field]()
        progress = {run: Progress(*far) for run, far in self.tally.progress(runs).items()}
        progress |= {run: Progress() for run in runs if run not in progress}
        ended: set[str] = set()
        pending, budget = list(runs), MOST_EVENTS
        while pending and budget > 0:
            slice_, pending = pending[:100], pending[100:]
            found = self.tally.news({run: progress[run].at for run in slice_})
            lost = self._lost(found)
            for news in found:
                self._one(news, progress[news.run], labels, fresh, lost)
                budget -= len(news.entries)
                if news.over:
                    ended.add(news.run)
            pending += [news.run for news in found if news.more]
        far = {run: one.to_json() for run, one in progress.items()}
        add = {json.dumps(field, separators=(",", ":")): count for field, count in fresh.items() if count}
        done = self.tally.add(totals, add, far, sorted(ended), since)
        return fresh if done else None, len(pending)

    def _one(
        self, news: News, progress: Progress, labels: Labels, fresh: Counter[Field], lost: set[tuple[str, str]]
    ) -> None:
        mine = frozenset(node for run, node in lost if run == news.run)
        count = RunCount(news.workflow, progress, self._around(news), labels, fresh, mine)
        for entry, event in news.entries:
            count.feed(entry, event)

    def _lost(self, found: Sequence[News]) -> set[tuple[str, str]]:
        failed = {
            news.run: names[:FAILED]
            for news in found
            if (names := [event["node"] for _, event in news.entries if event.get("event") == "node_failed"])
        }
        return self.tally.lost(failed) if failed else set()

    def _around(self, news: News) -> Around:
        run = RunRef(news.run, news.graph)
        if not news.entries or not news.graph or run.hash in self._unreadable:
            return _nowhere
        return partial(self._place, run, news.workflow)

    def _place(self, run: RunRef, workflow: str, key: str, graph: str) -> tuple[str, bool] | None:
        if run.hash in self._unreadable or graph in self._unreadable:
            return None
        try:
            plan = self._runtime.plan_for(run, graph)
        except (BlobMissingError, BlobRejectedError) as error:
            self._unreadable.add(graph or run.hash)
            logger.warning("waiting inside of groups of '%s' is not measured: %s", workflow, error)
            return None
        if node_of(key) not in plan:
            return None
        place = Place.of(plan, key)
        return (place.scopes[0], place.spec.is_exit) if place.scopes else None


def _fields(totals: Totals) -> dict[Field, int]:
    return {tuple(json.loads(name)): count for name, count in totals.counts.items()}


def _nowhere(_: str, __: str) -> None:
    return None
