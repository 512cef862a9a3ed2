"""Adds our pages to what Flower is made of: its list of handlers, its templates, its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flower import urls
from flower.options import options
from tornado.web import url

from graflow_celery.celery_backend.app import runtime_of
from graflow_celery.flower_pages import handlers, templating
from graflow_celery.flower_pages.reading import Reader
from graflow_celery.settings import Settings

#: Of Flower's list of tasks: the arguments name workflow, node and attempt (`etl clean #1`).
COLUMNS = "state,args,name,received,runtime,worker,uuid"
STATIC = Path(__file__).with_name("static")


def add(app: Any, settings: Settings) -> None:
    """Adds the pages of an app's runs; once, however often it is called. Before Flower's application is made.

    Flower puts its URL prefix before every handler in its list, ours too; its catch-all stays the last.
    """
    if any(getattr(handler, "name", None) == "pipelines" for handler in urls.handlers):
        return
    given = {"reader": Reader(lambda: runtime_of(app, settings))}
    run = r"/pipelines/run/([^/]+)"
    urls.handlers[-1:-1] = [
        url(r"/pipelines", handlers.RunsPage, given, name="pipelines"),
        url(r"/pipelines/", handlers.RunsPage, given),
        url(r"/pipelines/runs\.json", handlers.RunsData, given, name="pipelines-data"),
        url(r"/pipelines/static/(.*)", handlers.Assets, {"path": str(STATIC)}, name="pipelines-static"),
        url(run, handlers.RunPage, given, name="pipeline"),
        url(rf"{run}/graph\.json", handlers.GraphData, given),
        url(rf"{run}/changes\.json", handlers.ChangesData, given),
        url(rf"{run}/node\.json", handlers.NodeData, given),
        url(rf"{run}/(cancel|retry|answer)", handlers.Action, given),
    ]
    urls.settings["template_loader"] = templating.TemplateLoader(urls.settings["template_path"])
    # Command line, environment and configuration file are read after this, so what they say holds.
    options.tasks_columns = COLUMNS
