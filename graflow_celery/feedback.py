"""People's side of feedback, under graflow's names: what is asked, and where answers are given."""

from __future__ import annotations

import functools
import importlib
import json
import urllib.request
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from graflow_celery.engine.feedback import FeedbackHandler, FeedbackRequest, FeedbackResponse, run_of
from graflow_celery.errors import ConfigError, FeedbackAnswerError, FeedbackNotFoundError, RunNotFoundError
from graflow_celery.local import LocalRun, open_run, open_runs

if TYPE_CHECKING:
    from graflow_celery.runs import Run
    from graflow_celery.settings import Settings


class FeedbackManager:
    """Lists what tasks ask of people, and answers it: of the runs in this process, and of those on workers.

    Args:
        backend: ``"local"`` sees the runs of this process that have not ended; ``"celery"`` sees runs on workers too.
        settings: where those are found; ``backend`` is ``"celery"`` then. Read from the environment by default.

    Raises:
        ConfigError: there is no such backend.
        StoreUnavailableError: from every method, with ``"celery"``: no server answers.
    """

    def __init__(self, backend: Literal["local", "celery"] | None = None, *, settings: Settings | None = None) -> None:
        chosen = backend or ("local" if settings is None else "celery")
        if chosen not in ("local", "celery"):
            raise ConfigError(
                f"FeedbackManager(backend='{chosen}'): requests are kept with their runs. Use 'local' for those of "
                f"this process, 'celery' for those on workers."
            )
        self._on_workers = chosen == "celery"
        self._settings = settings

    def list_pending_requests(self, session_id: str | None = None) -> list[FeedbackRequest]:
        """What may be answered now, of every run or of the one of this id, in the order of the asking by run."""
        return [request for request in self.list_requests(session_id) if request.is_open]

    def list_requests(self, session_id: str | None = None) -> list[FeedbackRequest]:
        """What the runs that have not ended asked, or the one of this id did, with the answers that there are."""
        if session_id is not None:
            run = self._run(session_id)
            return [] if run is None else run.feedback()
        found: list[LocalRun | Run] = list(open_runs())
        if self._on_workers:
            found += _distributed().active_runs(self._settings)
        return [request for run in found for request in run.feedback()]

    def get_request(self, feedback_id: str) -> FeedbackRequest | None:
        """What was asked under an id; None if nothing was."""
        found = self.list_requests(run_of(feedback_id))
        return next((request for request in found if request.feedback_id == feedback_id), None)

    def get_response(self, feedback_id: str) -> FeedbackResponse | None:
        """The answer to a request; None if there is none yet."""
        request = self.get_request(feedback_id)
        return None if request is None else request.response

    def provide_feedback(self, feedback_id: str, response: FeedbackResponse | Any) -> bool:
        """Answers a request, with a FeedbackResponse or a value that fits it. The run goes on.

        Returns: whether the answer was taken. It is not where nothing was asked under that id, where it was answered
            before, and where the run has ended.

        Raises:
            FeedbackAnswerError: the answer does not fit what was asked.
        """
        request = self.get_request(feedback_id)
        run = self._run(run_of(feedback_id))
        if run is None or request is None or not request.is_open:
            return False
        try:
            run.answer(feedback_id, response)
        except FeedbackNotFoundError:
            return False
        except FeedbackAnswerError:
            now = self.get_request(feedback_id)
            if now is not None and now.is_open:
                raise
            return False
        return True

    def _run(self, run_id: str) -> LocalRun | Run | None:
        here = open_run(run_id)
        if here is not None or not self._on_workers:
            return here
        try:
            found: Run = _distributed().Run.get(run_id, self._settings)
        except RunNotFoundError:
            return None
        return found


class WebhookFeedbackHandler(FeedbackHandler):
    """Posts what becomes of requests to a web address, as JSON: ``event``, ``request`` and, if answered, ``response``.

    Args:
        webhook_url: where to.
        headers: more headers.
        timeout: seconds that the other side may take.
    """

    def __init__(self, webhook_url: str, headers: Mapping[str, str] | None = None, timeout: float = 10.0) -> None:
        if not webhook_url.startswith(("http://", "https://")):
            raise ConfigError(f"webhook_url={webhook_url!r} has to begin with http:// or https://.")
        self.webhook_url = webhook_url
        self.headers = dict(headers or {})
        self.timeout = timeout

    def on_request_created(self, request: FeedbackRequest) -> None:
        self._post(self._said("feedback_requested", request))

    def on_response_received(self, request: FeedbackRequest, response: FeedbackResponse) -> None:
        self._post(self._said("feedback_answered", request))

    def on_request_timeout(self, request: FeedbackRequest) -> None:
        self._post(self._said("feedback_expired", request))

    def _said(self, event: str, request: FeedbackRequest) -> Mapping[str, Any]:
        asked = request.to_dict()
        return {"event": event, "response": asked.pop("response"), "request": asked}

    def _post(self, said: Mapping[str, Any]) -> None:
        headers = {"Content-Type": "application/json", **self.headers}
        made = urllib.request.Request(self.webhook_url, json.dumps(said).encode(), headers)
        with urllib.request.urlopen(made, timeout=self.timeout) as answer:
            answer.read()


class SlackFeedbackHandler(WebhookFeedbackHandler):
    """Tells a Slack channel what becomes of requests, and how to answer them.

    Args:
        webhook_url: an incoming webhook of Slack.
        channel: which channel.
        feedback_ui_url: a page where requests are answered, if you have one; the request's id is put after it.
    """

    def __init__(self, webhook_url: str, channel: str = "#approvals", feedback_ui_url: str | None = None) -> None:
        super().__init__(webhook_url)
        self.channel = channel
        self.feedback_ui_url = feedback_ui_url

    def _said(self, event: str, request: FeedbackRequest) -> Mapping[str, Any]:
        asked = request.feedback_id
        answer = f"`graflow-celery feedback answer {asked} ...`"
        if self.feedback_ui_url:
            answer = f"{self.feedback_ui_url.rstrip('/')}/{asked}"
        given = "" if request.response is None else str(request.response.value)
        text = {
            "feedback_requested": f"Task {request.task_id} asks: {request.prompt}\nAnswer: {answer}",
            "feedback_answered": f"Task {request.task_id} was answered: {given}",
            "feedback_expired": f"Task {request.task_id} still waits: {request.prompt}\nAnswer: {answer}",
        }[event]
        return {"channel": self.channel, "text": text}


@functools.cache
def _distributed() -> Any:
    """The distributed layer, loaded by name on first use: see `workflows`."""
    return importlib.import_module("graflow_celery.distributed")
