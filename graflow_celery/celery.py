"""The app that ``celery -A graflow_celery worker`` finds, and the two ways to another one.

Workers load their settings from the environment (see `graflow_celery.settings`).
"""

from __future__ import annotations

from graflow_celery.celery_backend.app import create_app, setup

__all__ = ["app", "create_app", "setup"]

app = create_app()
