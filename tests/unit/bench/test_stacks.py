from __future__ import annotations

from tests.bench.speed.stacks import profiles

LINES = """\
process 7:"celery worker";thread (0x1): MainThread;loop (celery/loops.py:12);read (redis/client.py:3) 5
process 7:"celery worker";thread (0x1): MainThread;loop (celery/loops.py:14) 2
process 7:"celery worker";process 9:"celery worker";loop (celery/loops.py:12);loop (celery/loops.py:12);run (a/b.py:1) 4

"""


def kind(process: str) -> str:
    return "main" if process.startswith("process 7:") else "pool"


def test_samples_are_counted_for_the_function_that_ran_and_for_its_callers() -> None:
    found = profiles(LINES.splitlines(), kind)
    assert found["main"].samples == 7
    assert found["main"].own == {"read (redis/client.py)": 5, "loop (celery/loops.py)": 2}
    assert found["main"].total == {"read (redis/client.py)": 5, "loop (celery/loops.py)": 7}


def test_a_function_that_calls_itself_is_counted_once() -> None:
    assert profiles(LINES.splitlines(), kind)["pool"].total["loop (celery/loops.py)"] == 4


def test_a_recording_of_one_process_names_none() -> None:
    found = profiles(["main (x.py:1) 3"], lambda process: process or "the only one")
    assert found["the only one"].samples == 3
