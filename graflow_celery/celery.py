"""The app that ``celery -A graflow_celery worker`` finds, and the two ways to another one.

Workers load their settings from the environment (see `graflow_celery.settings`). With the setting ``compat`` they
also run modules that were written for graflow. Flower, started for any of these apps, has a Pipelines section and
tells the metrics of its runs.
"""

from __future__ import annotations

from celery import Celery

from graflow_celery import compat, metrics
from graflow_celery.celery_backend import app as backend
from graflow_celery.flower_pages.hook import offer
from graflow_celery.settings import Settings, load_settings

__all__ = ["app", "create_app", "setup"]


def create_app(settings: Settings | None = None) -> Celery:
    """A Celery app with the engine's tasks, configured by ``settings`` (the environment's by default)."""
    chosen = settings or load_settings()
    return metrics.install(offer(backend.create_app(chosen), chosen), chosen)


def setup(app: Celery, settings: Settings | None = None) -> Celery:
    """Adds the engine to an app: its tasks, and heartbeats in the workers that run it.

    Args:
        app: the owner's app; its broker and result backend are used as they are, except that messages must be JSON.
        settings: where runs and content live; the environment's by default.

    Raises:
        ConfigError: Celery does not know the broker, or cannot load the result backend.
    """
    chosen = settings or load_settings()
    return metrics.install(offer(backend.setup(app, chosen), chosen), chosen)


def _app() -> Celery:
    settings = load_settings()
    if settings.compat:
        compat.install()
    return create_app(settings)


app = _app()
