"""A small run of the chaos command: see `tests/fault/chaos.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TIMEOUT = 150.0

pytestmark = [pytest.mark.workers, pytest.mark.slow]


@pytest.mark.timeout(TIMEOUT + 30)
def test_nothing_is_lost_or_counted_twice_while_everything_is_killed(tmp_path: Path) -> None:
    options = ["--seed", "20", "--runs", "24", "--minutes", "0.3", "--pace", "0.2", "--logs", str(tmp_path)]
    command = [sys.executable, "-m", "tests.fault.chaos", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stdout.decode()
