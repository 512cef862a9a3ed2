"""A Flower of the test's own, and requests to it as a browser or a script makes them."""

from __future__ import annotations

import http.cookiejar
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graflow_celery.testing import wait_until
from tests.e2e.shell import Command, Shell

_ADDRESS = re.compile(r"Visit me at https?://127\.0\.0\.1:(\d+)")


@dataclass(frozen=True)
class Page:
    """What was answered."""

    code: int
    text: str
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Browser:
    """Keeps cookies, and follows no redirect. ``headers`` go with every request."""

    def __init__(self, base: str, headers: Mapping[str, str] | None = None) -> None:
        self.base = base
        self.headers = dict(headers or {})
        self.cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(self.cookies), _NoRedirect(), urllib.request.ProxyHandler({})
        )

    def get(self, path: str, **query: str) -> Page:
        return self._ask(path + (f"?{urllib.parse.urlencode(query)}" if query else ""), None, {})

    def post(self, path: str, fields: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Page:
        return self._ask(path, urllib.parse.urlencode(fields, doseq=True).encode(), headers or {})

    @property
    def token(self) -> str:
        """Of the cookie that a page set; empty before."""
        return next((cookie.value or "" for cookie in self.cookies if cookie.name == "_xsrf"), "")

    def _ask(self, path: str, body: bytes | None, headers: Mapping[str, str]) -> Page:
        request = urllib.request.Request(self.base + path, body, {**self.headers, **headers})
        try:
            with self._opener.open(request, timeout=20) as answer:
                return Page(answer.status, answer.read().decode(), dict(answer.headers))
        except urllib.error.HTTPError as error:
            with error:
                return Page(error.code, error.read().decode(), dict(error.headers))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


class Flower:
    """``graflow-celery flower``, or ``program`` with ``flower`` after it, that answers.

    It chooses its port itself: one that was free a moment ago may be the near end of somebody's connection by now.
    """

    def __init__(
        self, shell: Shell, *arguments: str, prefix: str = "", program: Sequence[str] = (), **env: str
    ) -> None:
        self.prefix = prefix
        self.base = ""
        given = [f"--url_prefix={prefix.strip('/')}"] if prefix else []
        line = ("flower", "--address=127.0.0.1", "--port=0", *given, *arguments)
        self.command: Command = shell.start(*line, program=program, **env)

    def browser(self, headers: Mapping[str, str] | None = None) -> Browser:
        return Browser(self.base, headers)

    def __enter__(self) -> Flower:
        self.command.__enter__()
        try:
            wait_until(self._answers, timeout=60, description="Flower to answer")
        except TimeoutError as error:
            error.add_note(self.command.out + self.command.err)
            self.command.__exit__(None, None, None)
            raise
        return self

    def _answers(self) -> bool:
        if self.command.process.poll() is not None:
            raise RuntimeError(f"Flower did not start: {self.command.out}{self.command.err}")
        found = _ADDRESS.search(self.command.err)
        if found is None:
            return False
        self.base = f"http://127.0.0.1:{found[1]}{self.prefix}"
        try:
            return self.browser().get("/healthcheck").code == 200
        except OSError:
            return False

    def __exit__(self, *exception: Any) -> None:
        self.command.__exit__(*exception)
