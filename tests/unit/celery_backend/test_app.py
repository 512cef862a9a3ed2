"""Our app beside the app that a process already has."""

from __future__ import annotations

from celery import Celery, current_app

from graflow_celery.celery_backend.app import create_app
from graflow_celery.settings import load_settings


def test_an_app_of_ours_does_not_become_the_current_one() -> None:
    before = current_app._get_current_object()
    owner = Celery("owner", broker="memory://")
    try:
        create_app(load_settings())
        assert current_app.main == owner.main, "the owner's shared tasks would be sent to our broker"
    finally:
        before.set_current()
