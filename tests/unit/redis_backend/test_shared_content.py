"""What the processes of a worker share: files that one of them writes and all of them map."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from graflow_celery.codec.envelope import Content
from graflow_celery.redis_backend import shared_content
from graflow_celery.redis_backend.shared_content import SharedContent, make_directory
from graflow_celery.testing import wait_until

NAMES = [f"{number:032x}" for number in range(10)]


@pytest.fixture
def shared(tmp_path: Path) -> SharedContent:
    return SharedContent(tmp_path, 10_000)


def test_what_one_keeps_another_finds(shared: SharedContent) -> None:
    shared.keep(NAMES[0], Content("pickle", b"x" * 1000))
    found = SharedContent(shared.directory, 10_000).find(NAMES[0])
    assert found is not None
    assert (found.serializer, bytes(found.payload)) == ("pickle", b"x" * 1000)
    assert shared.find(NAMES[1]) is None


def test_the_least_used_goes_first_and_stays_readable_for_who_has_it(shared: SharedContent) -> None:
    for number in range(3):
        shared.keep(NAMES[number], Content("raw", bytes([number]) * 3000))
        os.utime(shared.directory / NAMES[number], (number, number))
    held = shared.find(NAMES[0])  # and so it is the last used
    shared.keep(NAMES[3], Content("raw", b"3" * 3000))
    assert [number for number in range(4) if shared.find(NAMES[number])] == [0, 2, 3]
    shared.keep(NAMES[4], Content("raw", b"4" * 9000))
    assert [number for number in range(5) if shared.find(NAMES[number])] == [4]
    assert held is not None
    assert bytes(held.payload) == bytes(3000)


def test_what_is_larger_than_all_is_left_alone(shared: SharedContent) -> None:
    shared.keep(NAMES[0], Content("raw", b"x" * 2000))
    shared.keep(NAMES[1], Content("raw", b"x" * 10_000))
    assert shared.find(NAMES[1]) is None
    assert shared.find(NAMES[0]) is not None


def test_without_its_directory_nothing_is_shared_and_nothing_fails(shared: SharedContent) -> None:
    shared.directory.rmdir()
    shared.keep(NAMES[0], Content("raw", b"x"))
    with shared.alone(NAMES[0]):
        assert shared.find(NAMES[0]) is None


HOLDER = """
import signal, sys
from pathlib import Path
from graflow_celery.redis_backend.shared_content import SharedContent
with SharedContent(Path(sys.argv[1]), 10_000).alone(sys.argv[2]):
    Path(sys.argv[3]).write_text("held")
    signal.pause()
"""


def test_one_process_at_a_time_but_nobody_waits_for_one_that_hangs(
    shared: SharedContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_content, "PATIENCE", 0.2)
    said = tmp_path / "said"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, shared.directory, NAMES[0], said])
    try:
        wait_until(said.exists, description="the other process to hold the lock")
        holder.send_signal(signal.SIGSTOP)
        with shared.alone(NAMES[0]):
            pass  # after PATIENCE, as the other hangs
        with shared.alone(NAMES[1].replace("00", "ff", 1)):
            pass  # another lock
    finally:
        holder.kill()
        holder.wait()
    monkeypatch.setattr(shared_content, "PATIENCE", 30.0)
    with shared.alone(NAMES[0]):
        pass  # who died holds nothing


def test_directories_of_dead_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_content, "_MEMORY", tmp_path)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = tmp_path / f"graflow-celery-content-{os.getuid()}-{dead.pid}-abc"
    left.mkdir()
    (left / NAMES[0]).write_bytes(b"x")
    mine = make_directory(1000)
    assert mine is not None
    assert [path.name for path in tmp_path.iterdir()] == [mine.directory.name]
    assert mine.directory.stat().st_mode & 0o777 == 0o700
    again = make_directory(1000)
    assert again is not None
    assert mine.directory.exists()


def test_where_no_directory_can_be_made_nothing_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_content, "_MEMORY", tmp_path / "absent")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "absent too"))
    assert make_directory(1000) is None
