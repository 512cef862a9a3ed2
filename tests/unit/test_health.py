"""What `graflow-celery health` makes of the files that processes wrote of themselves."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graflow_celery.celery_backend.pulse import HealthFile
from graflow_celery.health import LONGEST_BEAT, Pulse, directory, look, path_of, quick, setting


@pytest.fixture
def home(tmp_path: Path) -> str:
    return f"{tmp_path}{os.sep}"


def pulse(age: float = 0.0, name: str = "w@h") -> Pulse:
    return Pulse(name, os.getpid(), time.monotonic() - age, 1.0, asking=False, answered=True)


def write(home: str, *pulses: Pulse) -> None:
    for item in pulses:
        Path(path_of(home, item.name)).write_text(item.text(), encoding="utf-8")


def test_one_that_beats_is_alive_until_three_beats_are_missing(home: str) -> None:
    write(home, pulse(2.0))
    assert (look(home).healthy, look(home).text) == (True, "w@h: alive")
    write(home, pulse(4.0))
    assert not look(home).healthy
    assert f"w@h (pid {os.getpid()}): no sign of life for 4." in look(home).text
    assert look(home, max_age=10).healthy


def test_one_that_waits_for_its_server_is_alive_and_not_ready(home: str) -> None:
    write(home, pulse(60.0)._replace(asking=True))
    assert look(home).healthy
    assert not look(home, ready=True).healthy
    write(home, pulse(0.1)._replace(answered=False))
    assert look(home).text == "w@h: alive, but the server does not answer"
    assert look(home, ready=True).text == "w@h: the server does not answer it"
    write(home, pulse(LONGEST_BEAT + 1)._replace(asking=True))
    assert not look(home).healthy


def test_one_whose_process_is_gone_or_whose_machine_was_started_since_is_not_alive(home: str) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write(home, pulse()._replace(pid=gone.pid))
    assert look(home).text == f"w@h: its process {gone.pid} is gone"
    write(home, pulse()._replace(at=time.monotonic() + 1000))
    assert "older than this machine's last start" in look(home).text


def test_all_of_a_directory_are_looked_at_or_one(home: str) -> None:
    assert "no file of a worker or monitor" in look(home).text
    write(home, pulse(name="a@h"), pulse(9.0, name="b@h"))
    assert not look(home).healthy
    assert look(home, "a@h").healthy
    assert not look(home, "b@h").healthy
    assert "no file of 'c@h'" in look(home, "c@h").text


def test_the_setting_names_a_file_or_a_directory(tmp_path: Path) -> None:
    assert path_of("", "w@h") == f"{directory()}/w@h.health"
    assert path_of(str(tmp_path), "a/b@h") == f"{tmp_path}/a_b@h.health"
    assert path_of(f"{tmp_path}/not-yet/", "w@h") == f"{tmp_path}/not-yet/w@h.health"
    assert path_of(f"{tmp_path}/beat", "w@h") == f"{tmp_path}/beat"


def test_the_probe_finds_what_a_worker_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAFLOW_CELERY_HEALTH_FILE", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    written = HealthFile("", "w@h", 1.0)
    assert quick([]) == 1
    written.asks()
    assert quick([]) == 0
    assert quick(["--ready"]) == 1
    written.beat(True)
    assert quick(["--ready", "--worker", "w@h", "--max-age=5"]) == 0
    assert Path(directory()).stat().st_mode & 0o777 == 0o700
    written.remove()
    assert quick([]) == 1


def test_the_settings_file_counts_where_the_environment_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "graflow.toml"
    file.write_text('health_file = "/run/beat"\n', encoding="utf-8")
    monkeypatch.delenv("GRAFLOW_CELERY_HEALTH_FILE", raising=False)
    monkeypatch.setenv("GRAFLOW_CELERY_CONFIG", str(file))
    assert setting() == "/run/beat"
    monkeypatch.setenv("GRAFLOW_CELERY_HEALTH_FILE", "/run/other")
    assert setting() == "/run/other"


def test_a_file_that_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "plain").write_text("", encoding="utf-8")
    written = HealthFile(f"{tmp_path}/plain/under/", "w@h", 1.0)
    written.beat(True)
    written.beat(True)
    written.remove()
    assert [record.message for record in caplog.records if "health" in record.message] != []
    assert len(caplog.records) == 1


@pytest.mark.parametrize("arguments", [["--help"], ["--worker"], ["--max-age", "x"], ["extra"]])
def test_what_needs_more_words_is_left_to_the_command_line(arguments: list[str]) -> None:
    assert quick(arguments) is None
