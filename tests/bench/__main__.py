"""`python -m tests.bench` (`make bench`): the figures of speed, against raw Celery. See `tests.bench.speed.main`."""

from __future__ import annotations

import sys

from tests.bench.speed.main import main

if __name__ == "__main__":
    sys.exit(main())
