"""``python -m graflow_celery.compat SCRIPT.py [ARGUMENT ...]``: runs a script that was written for graflow."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from graflow_celery.compat import install


def main() -> None:
    """Executes the script as ``python SCRIPT.py`` would, but for what ``import graflow`` means."""
    if len(sys.argv) < 2:
        sys.exit("error: no script. Give one: python -m graflow_celery.compat SCRIPT.py [ARGUMENT ...]")
    script = Path(sys.argv[1])
    if not script.is_file():
        sys.exit(f"error: no file '{script}'.")
    install()
    sys.argv = sys.argv[1:]
    sys.path[0] = str(script.resolve().parent)
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    main()
