from __future__ import annotations

import pytest

from graflow_celery.testing import wait_until


def test_the_value_that_was_waited_for_is_returned() -> None:
    turns = iter([None, 0, "found"])
    assert wait_until(lambda: next(turns), description="a value") == "found"


def test_a_timeout_says_what_was_waited_for() -> None:
    with pytest.raises(TimeoutError, match=r"Waited for the moon: not within 0\.02 s"):
        wait_until(lambda: False, timeout=0.02, description="the moon")


def test_it_asks_once_more_when_the_time_is_up() -> None:
    asked: list[int] = []
    with pytest.raises(TimeoutError):
        wait_until(lambda: asked.append(1), timeout=0, description="nothing")
    assert len(asked) == 1
