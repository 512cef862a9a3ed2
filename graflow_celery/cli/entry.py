"""The ``graflow-celery`` script: a probe that runs every few seconds need not load what the other commands do."""

from __future__ import annotations

import importlib
import sys

from graflow_celery import health


def main() -> None:
    """Answers ``graflow-celery health`` at once, and hands all else on."""
    if sys.argv[1:2] == ["health"] and (code := health.quick(sys.argv[2:])) is not None:
        sys.exit(code)
    importlib.import_module("graflow_celery.cli.main").main()


if __name__ == "__main__":
    main()
