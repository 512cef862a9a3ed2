"""What a worker says at its start of who could make it run code."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator

from celery import Celery
from kombu.serialization import prepare_accept_content

from graflow_celery.settings import Settings, socket_of

logger = logging.getLogger(__name__)

_PICKLE = "application/x-python-serialize"


def accepts_pickle(app: Celery) -> bool:
    """Whether Celery unpickles messages for this app's workers."""
    return _PICKLE in (prepare_accept_content(app.conf.accept_content) or ())


def warn(app: Celery, settings: Settings) -> None:
    """Says once for each thing that is open what it is, and what closes it."""
    for text in _open(app, settings):
        logger.warning("%s", text)


def _open(app: Celery, settings: Settings) -> Iterator[str]:
    if settings.secret_key is None and not _is_ours_alone(settings.redis_url):
        yield (
            "no secret_key is set: whoever can write to the store can make this worker run code. Set "
            "GRAFLOW_CELERY_SECRET_KEY to the same long random text for clients and workers."
        )
    if accepts_pickle(app):
        yield (
            "this app's accept_content has pickle: whoever can write to the broker can make this worker run code, "
            "whatever secret_key says. graflow_celery's own messages are JSON; leave pickle out if nothing else of the "
            "app needs it."
        )


def _is_ours_alone(url: str) -> bool:
    """Whether the server listens on a socket that this user alone may open, as the embedded one does."""
    path = socket_of(url)
    try:
        return path is not None and not stat.S_IMODE(os.stat(path).st_mode) & (stat.S_IRWXG | stat.S_IRWXO)
    except OSError:
        return False
