"""The units for systemd in config/: what systemd itself thinks of them, and that they name what is there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.markdown import ROOT

UNITS = sorted(path for path in (ROOT / "config").iterdir() if path.suffix in (".service", ".timer"))
PROGRAMS = "/srv/app/venv/bin"


def test_there_are_units_for_a_worker_and_its_probe() -> None:
    assert [unit.name for unit in UNITS] == ["graflow-health.service", "graflow-health.timer", "graflow-worker.service"]
    texts = {unit.name: unit.read_text(encoding="utf-8") for unit in UNITS}
    files = "Environment=GRAFLOW_CELERY_HEALTH_FILE=/run/graflow/\n"
    assert files in texts["graflow-worker.service"]
    assert files in texts["graflow-health.service"], "worker and probe look at the same place"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_them(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("celery", "graflow-celery"):
        (programs / name).write_text("#!/bin/sh\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    for unit in UNITS:
        text = unit.read_text(encoding="utf-8").replace(PROGRAMS, str(programs)).replace("User=app\n", "")
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    line = ["systemd-analyze", "verify", *(str(tmp_path / unit.name) for unit in UNITS)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
