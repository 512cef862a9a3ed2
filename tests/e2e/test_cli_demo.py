"""``graflow-celery demo``: the whole of it, and Ctrl-C at any moment."""

from __future__ import annotations

import json
import random
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from graflow_celery.testing import wait_until
from tests.e2e.shell import Shell

pytestmark = [pytest.mark.workers, pytest.mark.slow]

MOMENTS = 10
LATEST = 6.0  # seconds; by then the workers are at work


@pytest.fixture
def demo_shell(lonely_shell: Shell) -> Shell:
    """A shell in which the census has three small files to count, and says where its files in /tmp lie."""
    lonely_shell.write("counted/one.py", "def f(x):\n    return x\n")
    lonely_shell.write("counted/two.py", "import json\n\n\nclass C:\n    pass\n")
    lonely_shell.write("counted/pack/__init__.py", "import os\n")
    lonely_shell.env.pop("CENSUS_REPORT_DIR", None)
    lonely_shell.env["CENSUS_ROOTS"] = str(lonely_shell.home / "counted")
    return lonely_shell


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A directory for temporary files with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="demo-", dir="/tmp") as path:
        yield Path(path)


def test_it_shows_progress_a_summary_and_where_the_report_lies(demo_shell: Shell) -> None:
    with demo_shell.start("demo") as command:
        answer = command.wait()
        assert (answer.code, answer.err) == (0, "")
        assert command.left_running() == []
    assert answer.out.startswith("Starting a server and 2 workers ...\n")
    assert "packages: 3/3, done in" in answer.out
    assert re.search(r"^succeeded  stdlib_census  run [0-9a-f]{16}  ", answer.out, re.MULTILINE)
    assert "3 packages, 3 files, 8 lines, 1 functions, 1 classes" in answer.out
    for kind in ("html", "json"):
        place = demo_shell.home / "report" / f"census.{kind}"
        assert re.search(rf"^  {kind}  {re.escape(str(place))}$", answer.out, re.MULTILINE)
        assert place.is_file()
    assert json.loads((demo_shell.home / "report" / "census.json").read_text())["totals"]["lines"] == 8


def test_the_report_goes_where_it_is_told_to(demo_shell: Shell) -> None:
    answer = demo_shell("demo", CENSUS_REPORT_DIR="else/where")
    assert answer.code == 0
    assert (demo_shell.home / "else/where/census.html").is_file()
    assert not (demo_shell.home / "report").exists()


@pytest.mark.parametrize("seed", range(MOMENTS))
def test_an_interrupt_at_any_moment_leaves_nothing(demo_shell: Shell, temporary: Path, seed: int) -> None:
    moment = random.Random(seed).uniform(0.0, LATEST)
    began = time.monotonic()
    with demo_shell.start("demo", CENSUS_ROOTS="", TMPDIR=str(temporary)) as command:
        wait_until(
            lambda: time.monotonic() - began > moment or command.process.poll() is not None,
            description=f"second {moment:.2f} of the demo",
        )
        command.interrupt()
        answer = command.wait(20)
        # Before our code is loaded the interrupt is Python's own to answer.
        assert answer.code in (130, -signal.SIGINT), answer
        wait_until(lambda: not command.left_running(), timeout=5, description="its processes to end")
    wait_until(lambda: not list(temporary.iterdir()), timeout=5, description="its files to be gone")
