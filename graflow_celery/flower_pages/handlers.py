"""Our pages in Flower: behind its login and its URL prefix, and as careful with what changes something as it is.

Whatever asks the store does so in a thread: Flower has one event loop.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from typing import Any, ClassVar
from urllib.parse import urlparse

from flower.utils import strtobool
from flower.views import BaseHandler
from tornado import web

from graflow_celery.errors import (
    FeedbackNotFoundError,
    GraflowError,
    RunNotFoundError,
    UnavailableError,
    UnknownNodeError,
)
from graflow_celery.flower_pages.reading import Filter, Reader
from graflow_celery.runs import Run
from graflow_celery.threads import call

#: No script but those that are shipped: a second wall behind the escaping of names and errors, which are users'.
POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
_MISSING = (RunNotFoundError, UnknownNodeError, FeedbackNotFoundError)


class Handler(BaseHandler):
    """What all of our handlers share."""

    def initialize(self, reader: Reader) -> None:
        self.reader = reader

    def set_default_headers(self) -> None:
        """None of Flower's cross-origin headers: other sites have no business with runs."""
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Security-Policy", POLICY)

    @property
    def refusal(self) -> str:
        """Why nothing may be changed from here; empty if it may. It is what Flower itself goes by."""
        options = self.application.options
        if getattr(options, "read_only", False):
            return "Flower is read-only."
        if options.basic_auth or options.auth:
            return ""
        if strtobool(os.environ.get("FLOWER_UNAUTHENTICATED_API") or "false"):
            return ""
        return "Buttons are there once Flower asks who you are (--basic_auth), or FLOWER_UNAUTHENTICATED_API is set."

    @property
    def who(self) -> str | None:
        """Who has logged in, if Flower knows."""
        if isinstance(self.current_user, str):
            return self.current_user
        kind, _, credentials = self.request.headers.get("Authorization", "").partition(" ")
        if kind != "Basic":
            return None
        try:
            return base64.b64decode(credentials).decode().partition(":")[0] or None
        except (binascii.Error, UnicodeDecodeError):
            return None


class RunsPage(Handler):
    """The list of runs."""

    @web.authenticated
    def get(self) -> None:
        self.render("pipelines.html", states=("running", "waiting", "succeeded", "failed", "cancelled", "terminated"))


class RunPage(Handler):
    """One run."""

    @web.authenticated
    async def get(self, run_id: str) -> None:
        try:
            workflow = await call(self._workflow, run_id)
        except RunNotFoundError as error:
            raise web.HTTPError(404, "%s", str(error)) from None
        self.render("pipeline.html", run_id=run_id, workflow=workflow, refusal=self.refusal)

    def _workflow(self, run_id: str) -> str:
        return self.reader.run(run_id).workflow


class Data(Handler):
    """Answers with JSON, errors too: ``{"error": TEXT}``."""

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        error = kwargs.get("exc_info", (None, None))[1]
        said = error.get_message() if isinstance(error, web.HTTPError) else ""
        self.set_status(status_code)
        if status_code == 401 and self.application.options.basic_auth:
            self.set_header("WWW-Authenticate", 'Basic realm="flower"')
        self.finish({"error": said or self._reason})

    def prepare(self) -> None:
        """Who asks for data is not sent to a page to log in, as a script cannot follow to another site."""
        if self.current_user is None:
            raise web.HTTPError(401, "You are not logged in any more. Reload the page to log in.")

    async def answer(self, asked: Any, *args: Any, **kwargs: Any) -> None:
        """Calls a blocking function and writes what it returns, or what went wrong."""
        try:
            self.write(await call(asked, *args, **kwargs))
        except _MISSING as error:
            self._fail(404, error)
        except UnavailableError as error:
            self._fail(503, error)
        except GraflowError as error:
            self._fail(409, error)

    def _fail(self, status: int, error: GraflowError) -> None:
        self.set_status(status)
        self.write({"error": str(error)})


class RunsData(Data):
    @web.authenticated
    async def get(self) -> None:
        wanted = Filter(*(self.get_query_argument(name, "") for name in ("workflow", "state", "text")))
        await self.answer(self.reader.runs, wanted, self.get_query_argument("after", ""))


class GraphData(Data):
    @web.authenticated
    async def get(self, run_id: str) -> None:
        await self.answer(self.reader.graph, run_id)


class ChangesData(Data):
    @web.authenticated
    async def get(self, run_id: str) -> None:
        look = self.get_query_argument("look", "") == "1"
        await self.answer(self.reader.changes, run_id, self.get_query_argument("after", ""), look=look)


class NodeData(Data):
    @web.authenticated
    async def get(self, run_id: str) -> None:
        key = self.get_query_argument("key", strip=False)
        tasks = self.application.events.state.tasks
        await self.answer(self.reader.node, run_id, key, known=lambda name: tasks.get(name) is not None)


class Action(Data):
    """What a button does: cancel, retry what failed, answer a task's question."""

    SUPPORTED_METHODS: ClassVar[tuple[str, ...]] = ("POST",)

    def check_xsrf_cookie(self) -> None:
        """Always, where Flower asks for the token only of who logged in by OAuth."""
        site, origin = self.request.headers.get("Sec-Fetch-Site"), self.request.headers.get("Origin")
        if site not in (None, "same-origin", "none") or (
            origin is not None and urlparse(origin).netloc != self.request.host
        ):
            raise web.HTTPError(403, "The request comes from another site.")
        web.RequestHandler.check_xsrf_cookie(self)

    @web.authenticated
    async def post(self, run_id: str, action: str) -> None:
        if self.refusal:
            raise web.HTTPError(403, "%s", self.refusal)
        await self.answer(getattr(self, f"_{action}"), run_id)

    def _cancel(self, run_id: str) -> dict[str, Any]:
        by = f"cancelled in Flower by {self.who}" if self.who else "cancelled in Flower"
        ended = self.reader.run(run_id).cancel(self.get_body_argument("reason", "") or by)
        return {"said": "Cancelled." if ended else "It had ended before."}

    def _retry(self, run_id: str) -> dict[str, Any]:
        report = self.reader.run(run_id).retry_failed()
        return {"said": f"{len(report.again):,} run again, {len(report.kept):,} are kept."}

    def _answer(self, run_id: str) -> dict[str, Any]:
        request, kind = self.get_body_argument("request"), self.get_body_argument("type", "")
        value: Any = self.get_body_argument("value", "", strip=False)
        if kind == "multi_selection":
            value = self.get_body_arguments("value", strip=False)
        elif kind == "custom":
            value = _from_json(value)
        run: Run = self.reader.run(run_id)
        run.answer(request, value, reason=self.get_body_argument("reason", "") or None, by=self.who)
        return {"said": "Answered."}


def _from_json(text: str) -> Any:
    """The value that a text of JSON stands for; another text stands for itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


class Assets(web.StaticFileHandler):
    """Scripts and styles, asked for again each time and sent if they changed."""

    def set_extra_headers(self, path: str) -> None:
        self.set_header("Cache-Control", "no-cache")
        self.set_header("X-Content-Type-Options", "nosniff")
