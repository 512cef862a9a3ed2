"""An app of somebody's own that takes pickled messages, with the engine added. For `test_secrets`."""

from __future__ import annotations

import os

from celery import Celery

from graflow_celery.celery import setup
from graflow_celery.settings import load_settings

settings = load_settings()
app = Celery("owner", broker=settings.broker, backend=settings.backend)
app.conf.accept_content = os.environ["OWNER_ACCEPTS"].split(",")
setup(app, settings)
