"""How members are divided: all of them, within bounds, small before anything is known, large when they are quick."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graflow_celery.engine.portions import MOST, MOST_WORK, OVERHEAD, portions

seconds = st.one_of(st.none(), st.floats(0.0, 1000.0))


@given(st.integers(0, 20_000), seconds, st.integers(0, 200), st.one_of(st.none(), st.integers(1, 500)))
def test_every_member_is_in_one_portion(count: int, expected: float | None, processes: int, most: int | None) -> None:
    found = portions(count, expected, processes, most)
    assert sum(found) == count
    assert all(1 <= size <= (most or MOST) for size in found)


@given(st.integers(1, 20_000), st.floats(0.0, 10.0), st.integers(1, 64))
def test_a_portion_carries_so_much_work_at_the_most(count: int, expected: float, processes: int) -> None:
    each = expected + OVERHEAD
    assert all(size == 1 or size * each <= MOST_WORK * 1.000001 for size in portions(count, expected, processes))


@given(st.integers(1, 20_000), st.floats(0.0, 10.0), st.integers(1, 64))
def test_portions_do_not_grow_towards_the_end(count: int, expected: float, processes: int) -> None:
    found = portions(count, expected, processes)
    assert found == sorted(found, reverse=True)


@given(st.integers(1, 20_000), st.floats(0.0, 10.0), st.floats(0.0, 10.0), st.integers(1, 64))
def test_longer_members_make_no_fewer_portions(count: int, one: float, other: float, processes: int) -> None:
    less, more = sorted((one, other))
    assert len(portions(count, less, processes)) <= len(portions(count, more, processes))


@given(st.integers(2, 20_000), st.floats(0.0, 10.0), st.integers(2, 64))
def test_there_is_something_for_every_process(count: int, expected: float, processes: int) -> None:
    """Unless it would be next to no work."""
    found = portions(count, expected, processes)
    assert len(found) >= min(count, processes) or found[0] * (expected + OVERHEAD) <= 0.005 + expected + OVERHEAD


def test_the_first_portions_are_small_if_nothing_is_known() -> None:
    found = portions(60, None, 2)
    assert found[:6] == [1, 1, 2, 2, 4, 4]
    assert sum(found) == 60


def test_a_number_that_was_chosen_is_kept() -> None:
    assert portions(7, 100.0, 4, 3) == [3, 3, 1]
    assert portions(2, None, 1, 3) == [2]


@pytest.mark.parametrize("expected", [0.2, 5.0])
def test_long_members_travel_alone(expected: float) -> None:
    assert portions(5, expected, 2) == [1] * 5
