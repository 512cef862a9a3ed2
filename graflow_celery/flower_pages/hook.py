"""How our pages get into Flower, whoever starts it: ``celery -A APP flower`` or ``graflow-celery flower``.

Flower has no plugins, but Celery's command line has user options (``app.user_options``), which every command of an app
gets, Flower's too. Ours is ``--pipelines`` (on unless ``--no-pipelines`` is said). Click calls it back when a command's
line is parsed: if that command is Flower's, our pages are added to what Flower is about to be made of, the lists in
`flower.urls`, and with them a ``/metrics`` that does not hold up its event loop, in any case. So no other command loads
anything, and an app of its owner's that was given to `graflow_celery.celery.setup` has the pages as well.
"""

from __future__ import annotations

import importlib
from typing import Any

import click

from graflow_celery.settings import Settings


def offer(app: Any, settings: Settings) -> Any:
    """Has Flower show our pages when it is started for a Celery app. Returns the app."""

    def chosen(ctx: click.Context, _: click.Parameter, wanted: bool) -> bool:
        if ctx.command.name == "flower" and not ctx.resilient_parsing:
            importlib.import_module("graflow_celery.flower_pages.scraping").add()
            if wanted:
                importlib.import_module("graflow_celery.flower_pages.routes").add(app, settings)
        return wanted

    app.user_options["preload"].add(
        click.Option(
            ["--pipelines/--no-pipelines"],
            default=True,
            hidden=True,
            expose_value=False,
            callback=chosen,
            help="Flower: show the runs of workflows under Pipelines.",
        )
    )
    return app
