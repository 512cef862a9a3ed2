"""The benchmark of speed runs from end to end. Its figures are for a machine that does nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.workers, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.bench", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=280)


@pytest.mark.timeout(300)  # Half a minute on a machine that does nothing else.
def test_every_row_is_measured_and_held_to_its_bar(tmp_path: Path) -> None:
    found, table = tmp_path / "found.json", tmp_path / "found.md"
    done = bench(
        *("--quick", "--rounds", "1", "--commands", "--json", str(found), "--markdown", str(table)),
        *("--peers", "huey", "--peers-home", str(tmp_path)),
    )
    assert found.exists(), done.stdout + done.stderr
    listed = bench("--list").stdout.split()
    rows = {row["name"]: row for row in json.loads(found.read_text())["rows"]}
    for name in listed:
        assert name in rows or name.startswith("peer-"), name

    missed = [name for name, row in rows.items() if row["verdict"] == "missed"]
    assert done.returncode == (1 if missed else 0), done.stdout + done.stderr
    assert rows.pop("huey-barrier")["verdict"] == "skipped"
    for name, row in rows.items():
        assert row["value"] is not None, name
        assert (row["verdict"] in ("met", "missed")) == (row["bar"] is not None), name
        assert row["ours"], name
        assert row["theirs"], name
        assert row["work"] in table.read_text(), name
    assert "make bench-peers" in done.stdout
    # A no-op member cannot do without: the message comes, the outcome is written.
    assert all(rows[name]["value"] > 0.5 for name in ("commands-batched", "commands-single"))


def test_an_unknown_peer_is_named() -> None:
    done = bench("--peers", "hoey")
    assert done.returncode == 2
    assert "hoey" in done.stderr
    assert "huey" in done.stderr
