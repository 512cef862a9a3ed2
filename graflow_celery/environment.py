"""What worker processes of ours inherit: the settings, and the paths from which this process imports."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from collections.abc import Mapping

from graflow_celery.fields import SecretStr
from graflow_celery.settings import ENV_PREFIX, Settings


def settings_environment(settings: Settings) -> dict[str, str]:
    """The variables from which another process loads equal settings, whatever file it reads besides."""
    found: dict[str, str] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            found[f"{ENV_PREFIX}{name.upper()}"] = value.get_secret_value()
        elif isinstance(value, (tuple, list, dict)):
            found[f"{ENV_PREFIX}{name.upper()}"] = json.dumps(value, default=SecretStr.get_secret_value)
        elif value is not None:
            found[f"{ENV_PREFIX}{name.upper()}"] = str(value)
    return found


def worker_environment(settings: Settings, extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with the settings, and with a PYTHONPATH that lets workers import what it imports."""
    path = [os.path.abspath(entry) for entry in sys.path if not _is_given(entry)]
    inherited = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    return {
        **os.environ,
        **settings_environment(settings),
        "PYTHONPATH": os.pathsep.join(dict.fromkeys([*path, *inherited])),
        **extra,
    }


def _is_given(entry: str) -> bool:
    """Whether any process of this interpreter has the entry: the standard library and the installed packages."""
    given = {os.path.realpath(path) for path in sysconfig.get_paths().values()}
    library = os.path.realpath(sysconfig.get_path("stdlib"))
    real = os.path.realpath(entry)
    return real in given or real.startswith(library + os.sep) or entry.endswith(".zip")
