"""The tracer that the setting ``tracing`` names, for processes and runs that were given none."""

from __future__ import annotations

import functools
import importlib
import os
from typing import Any

from graflow_celery import tracing

#: The tracers that a run or a setting may name.
TRACERS = {"otel": "OpenTelemetryTracer", "langfuse": "LangfuseTracer"}
#: Without any of these there is no such setting, and nothing has to be loaded to know that.
VARIABLES = ("GRAFLOW_CELERY_TRACING", "GRAFLOW_CELERY_CONFIG")


def made(name: str) -> Any:
    """A new tracer by the name that a setting has for it. Raises ExtraMissingError."""
    return getattr(tracing, TRACERS[name])()


@functools.cache
def _kept(name: str) -> Any:
    return made(name)


def of_settings(settings: Any = None) -> Any:
    """This process's tracer for local runs by the settings, the environment's by default; None if they want none.

    Raises:
        ConfigError: the settings cannot be read. ExtraMissingError: what traces is not installed.
    """
    if settings is None:
        if not any(os.environ.get(name) for name in VARIABLES):
            return None
        settings = importlib.import_module("graflow_celery.settings").load_settings()
    return None if settings.tracing == "off" else _kept(settings.tracing)
