"""The app that ``celery -A graflow_celery worker`` finds, and the two ways to another one.

Workers load their settings from the environment (see `graflow_celery.settings`). With the setting ``compat`` they
also run modules that were written for graflow.
"""

from __future__ import annotations

from celery import Celery

from graflow_celery import compat, metrics
from graflow_celery.celery_backend.app import create_app, setup
from graflow_celery.settings import load_settings

__all__ = ["app", "create_app", "setup"]


def _app() -> Celery:
    settings = load_settings()
    if settings.compat:
        compat.install()
    made = create_app(settings)
    metrics.install(made, settings)
    return made


app = _app()
