"""A run on Celery workers, as a client sees it: follow it, ask for its results, cancel it, let it go on."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from threading import Event
from typing import TYPE_CHECKING, Any

from graflow_celery import aio
from graflow_celery.celery_backend.app import create_app, runtime_of
from graflow_celery.celery_backend.code_check import CODE_DIFFERS
from graflow_celery.celery_backend.collected import lines
from graflow_celery.celery_backend.explaining import explain
from graflow_celery.celery_backend.results import node_result, run_result
from graflow_celery.celery_backend.retrying import RetryReport, retry
from graflow_celery.celery_backend.runtime import Runtime
from graflow_celery.celery_backend.showing import as_html, display, shown
from graflow_celery.celery_backend.source import Source
from graflow_celery.celery_backend.waiting import (
    OBSTACLES,
    Circumstances,
    check_there,
    in_words,
    is_end,
    is_pause,
    persistent,
)
from graflow_celery.celery_backend.watching import standby_of
from graflow_celery.core.events import CancelRequested
from graflow_celery.core.plan import Plan
from graflow_celery.core.state import RunStatus
from graflow_celery.engine.context import ExecutionContext
from graflow_celery.engine.explanation import Explanation
from graflow_celery.engine.feedback import FeedbackRequest, FeedbackResponse, requests
from graflow_celery.engine.feedback_desk import answer, as_response, find
from graflow_celery.engine.shift import FRESH
from graflow_celery.errors import (
    BlobMissingError,
    RunTimeoutError,
    StoreUnavailableError,
)
from graflow_celery.ports import EventRecord, FeedbackRecord, NodeReport, RunRef
from graflow_celery.redis_backend.client import check, connect, patience
from graflow_celery.redis_backend.events import EventReader
from graflow_celery.redis_backend.log_stream import Line
from graflow_celery.redis_backend.plea import MISSING
from graflow_celery.settings import Settings, load_settings

if TYPE_CHECKING:
    from graflow_celery.terminal.live import Display

IDLE_SLICE = 1.0

logger = logging.getLogger(__name__)
Progress = Callable[[EventRecord], None]
_clients: dict[Settings, Runtime] = {}


def client_runtime(settings: Settings | None = None, *, ask: bool = True) -> Runtime:
    """This process's runtime for ``settings`` (the environment's by default), made once.

    Raises:
        StoreUnavailableError: no server answers. It is asked when the runtime is made, if ``ask`` says so.
    """
    chosen = settings or load_settings()
    if chosen not in _clients:
        if ask:
            check(chosen.redis_url)
        _clients[chosen] = runtime_of(create_app(chosen), chosen)
    return _clients[chosen]


class Run:
    """One run on the workers. Any process can have it: ``Run.get(run_id)``."""

    def __init__(self, runtime: Runtime, run: RunRef) -> None:
        self._runtime = runtime
        self._run = run
        self._source: Source | None = None
        self.uploaded_blobs = 0
        self.uploaded_bytes = 0

    @classmethod
    def get(cls, run_id: str, settings: Settings | None = None) -> Run:
        """Raises RunNotFoundError if the store has no such run."""
        runtime = client_runtime(settings)
        return cls(runtime, RunRef(run_id, runtime.store.details(run_id)["graph"]))

    @property
    def id(self) -> str:
        return self._run.id

    @property
    def graph_hash(self) -> str:
        return self._run.hash

    @property
    def plan(self) -> Plan:
        """The graph that the run follows."""
        return self._runtime.plan_for(self._run)

    @property
    def workflow(self) -> str:
        return self.details()["workflow"]

    @property
    def status(self) -> RunStatus:
        return RunStatus(self.details()["status"])

    @property
    def reason(self) -> str:
        """Why the run ended as it did; empty for a success or a run that goes on."""
        return self.details().get("reason", "")

    @property
    def started_at(self) -> float:
        """Seconds since the epoch, by the server's clock."""
        return int(self.details()["started"]) / 1000

    @property
    def finished_at(self) -> float | None:
        finished = self.details().get("finished")
        return None if finished is None else int(finished) / 1000

    @property
    def context(self) -> ExecutionContext:
        """The run's results and channel."""
        return self._runtime.context(self._run, self.plan)

    def details(self) -> dict[str, str]:
        """What the store notes of the run itself: status, counts, times. Raises RunNotFoundError."""
        return self._runtime.store.details(self.id)

    def nodes(self) -> dict[str, NodeReport | None]:
        """Every node of the graph and how it stands, None for one that did not begin; and what else began, by key:
        members of mapped tasks, added tasks, later passes."""
        return {**dict.fromkeys(self.plan.nodes), **self._runtime.store.records(self._run)}

    def obstacle(self) -> str:
        """What keeps the run from moving now: a server that refuses to be written to, or queues without a worker."""
        if self.status.is_terminal:
            return ""
        found = Circumstances.of(self._runtime).obstacle(self.plan.queues(self._runtime.settings.queue))
        return "" if found is None else in_words(found)

    def errors(self) -> dict[str, str]:
        """The text of the error of each node that failed."""
        failed = [name for name, report in self.nodes().items() if report and report.state == "failed"]
        outcomes = self._runtime.store.outcomes(self._run, failed)
        return {name: found.error or "failed" for name, found in zip(failed, outcomes, strict=True)}

    def events(self, follow: bool = False) -> Iterator[EventRecord]:
        """The run's events from the first on; with ``follow`` also those to come, until the run has ended.

        While nothing happens it tells of what keeps the run from moving: ``{"event": "workers_missing", "queues":
        [...]}``, ``{"event": "store_refuses", "reason": ...}``.

        Raises, with ``follow``, what :meth:`wait` raises.
        """
        reader = self._reader(self._runtime.keys.run(self.id).events)
        if not follow:
            yield from reader.history()
            return
        for record in self._watch(reader):
            if record is not None:
                yield record

    def logs(self, follow: bool = False) -> Iterator[Line]:
        """What the code of its nodes logged, where the workers' setting ``collect_logs`` is on: a dict for each line.

        By the time at which they were written; with ``follow`` as they come, until the run has ended.
        """
        return lines(self._runtime, self._run, follow=follow)

    def wait(
        self, timeout: float | None = None, progress: Progress | bool | None = False, *, to_end: bool = False
    ) -> RunStatus:
        """Blocks until the run has ended and returns its status; or ``waiting``: for a person who is late.

        Args:
            progress: True shows how it goes: on a terminal live, elsewhere as lines, and at the end a summary. A
                function is called with each event.
            to_end: block then too, until somebody has answered and the run has ended.

        Raises:
            RunTimeoutError: it has not ended after ``timeout`` seconds; it goes on.
            StoreUnavailableError: the server has not answered for ``reconnect_timeout``; nothing is lost by that.
            RunLostError: the server came back without the run.
        """
        if progress is True:
            with shown(self._runtime, self._run) as feed:
                return self.wait(timeout, feed, to_end=to_end)
        deadline = None if timeout is None else time.monotonic() + timeout
        keys, tell = self._runtime.keys.run(self.id), progress or None
        reader = self._reader(keys.events if tell is not None else keys.end)
        try:
            for record in self._watch(reader, deadline):
                if record is not None:
                    (tell or self._warn)(record)
                if not to_end and is_pause(record) and self.status is RunStatus.WAITING:  # still, or once more
                    break
                if deadline is not None and time.monotonic() >= deadline and not is_end(record):
                    raise RunTimeoutError(self.id, timeout or 0.0, f"Look: graflow-celery show {self.id}")
            with persistent(self._runtime, self.id, deadline):
                return self.status
        except StoreUnavailableError as error:
            if deadline is None or time.monotonic() < deadline:
                raise
            raise RunTimeoutError(self.id, timeout or 0.0, str(error)) from None

    def display(self, *, as_json: bool = False, quiet: bool = False) -> Display:
        """What shows the run on standard output: feed it the events, in a ``with`` block."""
        return display(self._runtime, self._run, as_json=as_json, quiet=quiet)

    def _warn(self, record: EventRecord) -> None:
        if record["event"] in OBSTACLES:
            logger.warning("run %s waits: %s", self.id, in_words(record))
        elif record["event"] == CODE_DIFFERS:
            logger.warning("run %s: %s", self.id, record["reason"])

    def result(self, node: str | None = None) -> Any:
        """The result of a node, also of one that was added while the run went on, or the run's last result.

        Raises:
            Exception: what the failed node raised, its remote traceback as the cause.
            GraflowWorkflowCanceledError: the run was cancelled.
            RunFailedError: the run, or the node, has no result (yet).
            UnknownNodeError: it has no such node.
        """
        return run_result(self._runtime, self._run) if node is None else node_result(self._runtime, self._run, node)

    def results(self) -> dict[str, Any]:
        """The results that are there, by task id: those of added tasks and of members of mapped tasks too."""
        return self._runtime.store.all_results(self._run)

    def feedback(self) -> list[FeedbackRequest]:
        """What its tasks asked of people, in the order of the asking, with the answers that there are."""
        return requests(self.records(), ended=self.status.is_terminal)

    def records(self, ids: Sequence[str] | None = None) -> list[FeedbackRecord]:
        """What the store has of its requests, or of those with ``ids``."""
        return self._runtime.store.feedback(self._run, ids)

    def asked(self, request_id: str) -> FeedbackRecord:
        """What the store has of a request. Raises FeedbackNotFoundError."""
        return find(self._runtime.engine, self._run, request_id)

    def answer(
        self, request_id: str, value: Any, *, reason: str | None = None, by: str | None = None
    ) -> FeedbackResponse:
        """Answers what a task asked: it runs again from its start, and its request returns the answer.

        An answer after the request's timeout counts all the same: the run is ``running`` again.

        Args:
            value: True, False, ``"yes"`` or ``"no"``; a text; an option, or several; or a FeedbackResponse.
            reason, by: why, and who says so; kept with the answer.

        Returns: the answer as it is kept.

        Raises:
            FeedbackNotFoundError: the run has no such request.
            FeedbackAnswerError: it was answered already, the run has ended, or the value does not fit what was asked.
        """
        self._run = RunRef(self.id, self.details()["graph"])  # another process may have retried it
        engine, channel = self._runtime.engine, self._runtime.channel(self._run)
        request = FeedbackRequest.of(self.asked(request_id))
        response = as_response(request, value, reason, by)
        return answer(engine, self._run, channel, request_id, response, time.time())

    def explain(self, most: int | None = 20) -> Explanation:
        """What the run waits for, what befell it and what can be done: ``most`` nodes and events; None for all."""
        return explain(self._runtime, self._run, most)

    def checkpoints(self) -> list[str]:
        """The paths of the run's checkpoints, the oldest first: for `CheckpointManager.resume_from_checkpoint`."""
        return self._runtime.snapshots.paths(self._run)

    def cancel(self, reason: str = "") -> bool:
        """Ends the run: nothing of it starts any more once this returns. False if it had ended before."""
        applied = self._runtime.engine.end(self._run, CancelRequested(reason or "cancelled by the client"))
        if not applied.stale:
            Event().wait(2 * FRESH)  # for so long what had leave to begin may do so
        return not applied.stale

    def retry_failed(self, from_node: str | Sequence[str] = (), *, dry_run: bool = False) -> RetryReport:
        """Lets the run go on that has ended: what failed or was cut off runs again, and so does all that follows it.

        It keeps its id, its event log, its channel, and the results of what succeeded. The attempts of its nodes are
        counted on; their losses and retries, the run's steps and its timeout begin anew.

        Args:
            from_node: a node that runs again with all that follows it although it succeeded, or several: a task's or
                group's id, or a key such as ``"score[17]"``, as :meth:`nodes` and events have it.
            dry_run: only say what would be done.

        Raises:
            RetryRefusedError: the run goes on; nothing is left to run again; a task of it said that it is done; or
                somebody else retried it at the same time.
            UnknownNodeError: it has no such node.
            BlobMissingError: its graph is not in the store any more: submit the workflow again, as a new run.
        """
        nodes = [from_node] if isinstance(from_node, str) else list(from_node)
        report = retry(self._runtime, self.id, nodes, dry_run)
        self._run = RunRef(self.id, self.details()["graph"])
        return report

    def queues(self) -> tuple[str, ...]:
        """The queues that its tasks go to; none while the store lacks its graph, which is brought back if it can be."""
        try:
            return tuple(self.plan.queues(self._runtime.settings.queue))
        except BlobMissingError as error:
            self.bring_back({"names": error.digest, "what": error.what, "node": self.workflow})
            return ()

    def bring_back(self, missed: EventRecord) -> None:
        """Uploads again what a worker missed, if this process submitted the run; waiting for a run does so by itself.

        ``missed``: the event ``blobs_missing``.
        """
        if self._source is not None:
            self._source.put_back(self._run, missed)

    def __await__(self) -> Generator[Any, None, Any]:
        """``await run`` waits for the run's end and returns its last result; it raises what :meth:`result` raises."""
        return aio.wait(self._runtime, self).__await__()

    def aevents(self) -> AsyncGenerator[EventRecord, None]:
        """What :meth:`events` gives with ``follow``, for ``async for``."""
        return aio.aevents(self._runtime, self)

    def __repr__(self) -> str:
        return f"Run({self.id!r})"

    def _repr_html_(self) -> str:
        """What a notebook shows: how the run stands at this moment."""
        return as_html(self._runtime, self._run)

    def has_ended_with(self, record: EventRecord) -> bool:
        """Whether an event that tells of an end tells of the run's last one: it was not retried after that."""
        finished = self.finished_at
        return finished is not None and float(record["at"]) >= finished

    def _reader(self, key: str) -> EventReader:
        """A reader on a connection of its own, which may block."""
        return EventReader(connect(self._runtime.settings.redis_url, block=IDLE_SLICE), key)

    def _watch(self, reader: EventReader, deadline: float | None = None) -> Iterator[EventRecord | None]:
        """What the reader reads until the run's end, and None after each second, or at the deadline, without news."""
        with contextlib.ExitStack() as standing:
            yield from self._watched(reader, deadline, standing)

    def _obstacle(self) -> dict[str, Any] | None:
        """What keeps the run from moving, without waiting for a server that does not serve. Raises RunLostError."""
        try:
            with patience(0.0):  # a server that cannot save refuses the PING with which a new connection begins
                found = Circumstances.of(self._runtime)
                if not found.refusal:
                    check_there(self._runtime, self.id)
                return found.obstacle(self.queues())
        except StoreUnavailableError:
            return None

    def _watched(
        self, reader: EventReader, deadline: float | None, standing: contextlib.ExitStack
    ) -> Iterator[EventRecord | None]:
        settings = self._runtime.settings
        told: EventRecord | None = None
        stands = False
        idle = 0.0
        while True:
            slice_ = IDLE_SLICE if deadline is None else min(IDLE_SLICE, max(0.0, deadline - time.monotonic()))
            with persistent(self._runtime, self.id, deadline):
                records = reader.read(slice_)
            for record in records:
                if record["event"] == MISSING:
                    self.bring_back(record)
                yield record
                if is_end(record) and self.has_ended_with(record):
                    return
            idle = 0.0 if records else idle + slice_
            if records:
                continue
            yield None
            if not stands:  # who waits for long looks after what is late, if nobody else does
                standing.enter_context(standby_of(self._runtime).standing())
                stands = True
            if idle >= settings.heartbeat_timeout:
                found = self._obstacle()
                if found is not None and found != told:
                    yield {**found, "at": time.time()}
                told = found
