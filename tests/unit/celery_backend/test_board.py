"""What a process of a pool says that it does, read by the main process: also when it was killed while it wrote."""

from __future__ import annotations

import os
from collections.abc import Callable

from graflow_celery.celery_backend.board import SIZE, Board, Doing, Line
from graflow_celery.ports import Members

DOING = Doing("message", (("a", 1, ""), ("b~1", 2, "added")), Members("g", 3, 40, "added"), 1)


def in_a_child(work: Callable[[], None]) -> int:
    """Does it in a process of its own that has ended when this returns; its number."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return pid


def written(board: Board, doing: Doing = DOING) -> int:
    return in_a_child(lambda: board.write(doing))


def test_what_a_process_did_is_read_when_it_is_dead() -> None:
    board = Board()
    found = board.read(written(board), "message")
    assert found == DOING
    assert found.runs == ("b~1", 2, "added")


def test_which_attempt_runs_is_told_apart() -> None:
    board = Board()

    def work() -> None:
        board.write(DOING)
        board.point("message", 0)

    found = board.read(in_a_child(work), "message")
    assert found is not None
    assert (found.granted, found.runs) == (DOING.granted, DOING.granted[0])


def test_a_message_that_it_does_not_have_is_not_told() -> None:
    board = Board()
    assert board.read(written(board), "another") is None


def test_what_another_process_wrote_in_the_same_place_is_not_taken_for_this_ones() -> None:
    board = Board()
    pid = written(board)
    assert board.read(pid + 1024, "message") is None
    assert board.read(pid + 1, "message") is None


def test_what_was_half_written_is_not_told() -> None:
    board = Board()
    pid = written(board)
    start = (pid % 1024) * SIZE
    board._memory[start + 30 : start + 35] = b"xxxxx"
    assert board.read(pid, "message") is None


def test_what_says_a_length_that_cannot_be_is_not_told() -> None:
    board = Board()
    pid = written(board)
    start = (pid % 1024) * SIZE
    board._memory[start + 8 : start + 12] = b"\xff\xff\xff\xff"
    assert board.read(pid, "message") is None


def test_what_is_too_long_is_not_told_so_that_the_message_says_what_it_is_for() -> None:
    board = Board()
    many = tuple((f"{'m' * 250}{number}", 1, "") for number in range(SIZE // 250))
    assert board.read(written(board, Doing("message", many, None, 3)), "message") is None


def test_a_message_that_is_done_is_wiped() -> None:
    board = Board()

    def work() -> None:
        board.write(DOING)
        board.wipe("message")

    assert board.read(in_a_child(work), "message") is None


def test_threads_of_the_main_process_have_a_place_each() -> None:
    board = Board()
    one, two = Line(board, "one"), Line(board, "two")
    one.holds([("a", 1, "")], None)
    one.runs(("a", 1, ""))
    two.holds([], Members("g", 0, 2))
    for pid in (0, os.getpid()):
        assert board.read(pid, "one") == Doing("one", (("a", 1, ""),), None, 0)
        assert board.read(pid, "two") == Doing("two", (), Members("g", 0, 2))
    one.wipe()
    assert board.read(0, "one") is None
    assert board.read(0, "two") is not None


def test_a_process_without_a_board_says_nothing() -> None:
    line = Line(None, "one")
    line.holds([("a", 1, "")], None)
    line.wipe()
